"""The layers with weights of an EfficientNet, in order, for tables of other libraries' names."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from effnetv2_jax.models.efficientnet.scaling import scaled_repeats
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.models.libraries import Kind, Layer

if TYPE_CHECKING:
    from effnetv2_jax.models.efficientnet.model import EfficientNet


class Place(NamedTuple):
    """Where a block stands. Everything is counted from 0."""

    spec: StageSpec
    """Of its stage, unscaled."""
    stage: int
    repeat: int
    """Within its stage."""
    block: int
    """Within the network."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Its convolutions, in the order of the computation."""
        alone = self.spec.expand == 1 and self.spec.operator != "edge"
        expand = () if alone else ("expand",)
        depthwise = ("depthwise",) if self.spec.operator == "mbconv" else ()
        return (*expand, *depthwise, "project")


@dataclasses.dataclass(frozen=True)
class PlacedLayer(Layer):
    """A layer with weights, and where it stands."""

    place: Place | None = None
    """None for the stem, the head and the classifier."""
    num_stages: int = 0
    """Of the model; stated for the head and the classifier."""

    @property
    def role(self) -> str:
        """`stem`, `head` or `classifier`; within a block `expand`, `depthwise`, `se`, `project`."""
        return self.path[0] if self.place is None else self.path[1]


def layers(model: "EfficientNet") -> Iterator[PlacedLayer]:
    """Yields the layers of a model that have weights, from the stem to the classifier."""
    yield from _conv_norm("stem")
    block = 0
    counts = scaled_repeats([spec.repeats for spec in model.stages], model.depth, model.fixed_ends)
    for stage, (spec, count) in enumerate(zip(model.stages, counts)):
        for repeat in range(count):
            place = Place(spec, stage, repeat, block)
            module = f"blocks_{block}"
            *before_gates, last = place.roles
            for role in before_gates:
                yield from _conv_norm(module, role, place=place)
            if spec.se_ratio and before_gates:
                yield PlacedLayer((module, "se", "reduce"), "gate", place)
                yield PlacedLayer((module, "se", "expand"), "gate", place)
            yield from _conv_norm(module, last, place=place)
            block += 1
    if model.features_only:
        return
    count = len(model.stages)
    yield from _conv_norm("head", num_stages=count)
    if model.num_classes:
        yield PlacedLayer(("classifier",), "dense", None, count)


def _conv_norm(
    *path: str, place: Place | None = None, num_stages: int = 0
) -> Iterator[PlacedLayer]:
    kind: Kind = "depthwise" if path[-1] == "depthwise" else "conv"
    yield PlacedLayer((*path, "conv"), kind, place, num_stages)
    yield PlacedLayer((*path, "bn"), "bn", place, num_stages)
