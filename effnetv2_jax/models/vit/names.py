"""Vision transformers in timm: names and numerics."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from effnetv2_jax.models.libraries import (
    TORCH,
    Interchange,
    Layer,
    Library,
    only_pooling,
)
from effnetv2_jax.models.vit.config import ViTConfig
from effnetv2_jax.models.vit.published import TAGS, published, timm_name
from effnetv2_jax.models.vit.variants import VARIANTS

if TYPE_CHECKING:
    from effnetv2_jax.models.vit.model import ViT


def layers(model: "ViT") -> Iterator[Layer]:
    """Yields what has weights in a model, from the patches to the classifier."""
    yield Layer(("patches",), "gate")
    yield Layer(("class_token",), "array")
    yield Layer(("positions",), "array")
    for block in range(model.config.whole.depth):
        for part in _IN_BLOCK:
            yield Layer((f"blocks_{block}", part), "norm" if part.startswith("norm") else "dense")
    yield Layer(("norm",), "norm")
    if model.num_classes and not model.features_only:
        yield Layer(("classifier",), "dense")


_IN_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_OUTSIDE = {
    "patches": "patch_embed.proj",
    "class_token": "cls_token",
    "positions": "pos_embed",
    "norm": "norm",
    "classifier": "head",
}


def _timm(layer: Layer) -> str:
    outer, *inner = layer.path
    if not inner:
        return _OUTSIDE[outer]
    return f"{outer.replace('_', '.')}.{_IN_BLOCK[inner[0]]}"


TIMM = Library(
    name="timm",
    title="timm",
    models={timm_name(name): ViTConfig(name=name) for name in VARIANTS},
    fields_of=only_pooling("token", "dynamic_img_size", "dynamic_img_pad"),
    layer_name=_timm,
    first="patch_embed.proj",
    classifier="head",
    **TORCH,
)

INTERCHANGE = Interchange(libraries=(TIMM,), layers=layers, tags=TAGS, published=published)
