"""ResNet in timm and torchvision, which name its arrays alike: names and numerics."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from effnetv2_jax.models.libraries import (
    TORCH,
    Interchange,
    Layer,
    Library,
)
from effnetv2_jax.models.resnet.config import ResNetConfig
from effnetv2_jax.models.resnet.published import TAGS, published
from effnetv2_jax.models.resnet.variants import VARIANTS

if TYPE_CHECKING:
    from effnetv2_jax.models.resnet.model import ResNet


@dataclasses.dataclass(frozen=True)
class NamedLayer(Layer):
    """A layer with weights, whose name in PyTorch is found beside its path."""

    name: str


def layers(model: "ResNet") -> Iterator[NamedLayer]:
    """Yields the layers of a model that have weights, from the stem to the classifier."""
    whole = model.config.whole
    if whole.deep_stem:
        yield from _conv_norm("stem_0", "conv1.0", "conv1.1")
        yield from _conv_norm("stem_1", "conv1.3", "conv1.4")
        yield from _conv_norm("stem_2", "conv1.6", "bn1")
    else:
        yield from _conv_norm("stem_0", "conv1", "bn1")
    if whole.stem_pool == "conv":
        yield from _conv_norm("stem_conv", "maxpool.0", "maxpool.1")
    # timm's shortcuts that average have the average as their first part, also where it is none.
    conv = 1 if whole.average_shortcut else 0
    for stage, repeats in enumerate(whole.repeats):
        for repeat in range(repeats):
            ours, theirs = f"stages_{stage}_{repeat}", f"layer{stage + 1}.{repeat}"
            for number, role in enumerate(("reduce", "spatial", "expand"), start=1):
                yield from _conv_norm(
                    f"{ours}/{role}", f"{theirs}.conv{number}", f"{theirs}.bn{number}"
                )
            if whole.se_ratio:
                yield NamedLayer((ours, "se", "reduce"), "gate", f"{theirs}.se.fc1")
                yield NamedLayer((ours, "se", "expand"), "gate", f"{theirs}.se.fc2")
            if not repeat:
                part = f"{theirs}.downsample"
                yield from _conv_norm(f"{ours}/shortcut", f"{part}.{conv}", f"{part}.{conv + 1}")
    if model.num_classes and not model.features_only:
        yield NamedLayer(("classifier",), "dense", "fc")


def _conv_norm(path: str, conv: str, bn: str) -> Iterator[NamedLayer]:
    yield NamedLayer((*path.split("/"), "conv"), "conv", conv)
    yield NamedLayer((*path.split("/"), "bn"), "bn", bn)


def _name(layer: NamedLayer) -> str:
    return layer.name


TIMM = Library(
    name="timm",
    title="timm",
    models={name: ResNetConfig(name=name) for name in VARIANTS},
    layer_name=_name,
    first="layer1.0.conv1",
    stems=("conv1", "conv1.0"),
    classifier="fc",
    **TORCH,
)
TORCHVISION = dataclasses.replace(
    TIMM,
    name="torchvision",
    title="torchvision",
    models={name: TIMM.models[name] for name in ("resnet50", "resnet101", "resnet152")},
)

INTERCHANGE = Interchange(
    libraries=(TIMM, TORCHVISION), layers=layers, tags=TAGS, published=published
)
