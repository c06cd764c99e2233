"""The layers with weights of a model, in order, for tables of other libraries' names."""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from effnetv2_jax.models.efficientnet import EfficientNet
from effnetv2_jax.models.variants import StageSpec

Kind = Literal["conv", "depthwise", "gate", "bn", "dense"]
"""`gate` is one of squeeze-and-excitation's 1x1 convolutions, which have biases."""


class Place(NamedTuple):
    """Where a block stands. Everything is counted from 0."""

    spec: StageSpec
    """Of its stage, unscaled."""
    stage: int
    repeat: int
    """Within its stage."""
    block: int
    """Within the network."""


class Part(NamedTuple):
    """A layer with weights."""

    path: tuple[str, ...]
    """Of the Flax module: `("blocks_3", "expand", "conv")`."""
    kind: Kind
    place: Place | None
    """None for the stem, the head and the classifier."""

    @property
    def role(self) -> str:
        """`stem`, `head` or `classifier`; within a block `expand`, `depthwise`, `se`, `project`."""
        return self.path[0] if self.place is None else self.path[1]


def parts(model: EfficientNet) -> Iterator[Part]:
    """Yields the layers of a model that have weights, from the stem to the classifier."""
    yield from _conv_norm("conv", None, "stem")
    block = 0
    for stage, spec in enumerate(model.stages):
        for repeat in range(math.ceil(model.depth * spec.repeats)):
            place = Place(spec, stage, repeat, block)
            module = f"blocks_{block}"
            if spec.expand != 1:
                yield from _conv_norm("conv", place, module, "expand")
            if spec.operator == "mbconv":
                yield from _conv_norm("depthwise", place, module, "depthwise")
            if spec.se_ratio and not (spec.operator == "fused" and spec.expand == 1):
                yield Part((module, "se", "reduce"), "gate", place)
                yield Part((module, "se", "expand"), "gate", place)
            yield from _conv_norm("conv", place, module, "project")
            block += 1
    yield from _conv_norm("conv", None, "head")
    yield Part(("classifier",), "dense", None)


def _conv_norm(kind: Kind, place: Place | None, *path: str) -> Iterator[Part]:
    yield Part((*path, "conv"), kind, place)
    yield Part((*path, "bn"), "bn", place)
