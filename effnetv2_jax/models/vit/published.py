"""Vision transformers' published weights, hosted by timm on the Hugging Face Hub.

Their preprocessing is the models' own, with which timm's tables of results measure them.
"""

import re

from effnetv2_jax.models.libraries import Published
from effnetv2_jax.models.vit.variants import VARIANTS

_FT = "augreg-in21k-ft1k"

TAGS = {
    "vit-ti16": ("augreg-in21k", _FT),
    "vit-s16": ("augreg-in1k", "augreg-in21k", _FT),
    "vit-b16": ("augreg-in1k", "augreg-in21k", _FT, "orig-in21k-ft1k"),
    "vit-l16": ("augreg-in21k", _FT),
    "vit-ti16-384": (_FT,),
    "vit-s16-384": ("augreg-in1k", _FT),
    "vit-b16-384": ("augreg-in1k", _FT, "orig-in21k-ft1k"),
    "vit-l16-384": (_FT,),
    **{name: ("in1k",) for name in VARIANTS if name.startswith("deit")},
}
"""`in1k`: the authors' own, on ImageNet; `in21k` and `in21k-ft1k` as elsewhere. Of ViT `orig` is
the paper's, and `augreg` that of "How to train your ViT?" (arXiv 2106.10270)."""

_SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}


def timm_name(name: str) -> str:
    """`vit_base_patch16_384` for `vit-b16-384`, and `deit_small_patch16_224` for `deit-s`."""
    kind, size, *_ = re.split(r"-|16", name)
    return f"{kind}_{_SIZES[size]}_patch16_{VARIANTS[name].preprocessing.image_size}"


def published(name: str, tag: str) -> Published | None:
    """The published weights of a model, if it has any of that tag; `_` may stand for `-`."""
    deit = name.startswith("deit")
    tag = tag.replace("_", "-").replace("-ft-in1k", "-ft1k")
    tag = "in1k" if deit and tag == "fb-in1k" else tag
    if tag not in TAGS.get(name, ()):
        return None
    theirs = "fb_in1k" if deit else tag.replace("-ft1k", "-ft-in1k").replace("-", "_")
    return Published(
        repository=f"timm/{timm_name(name)}.{theirs}",
        preprocessing=VARIANTS[name].preprocessing,
        classes="21k" if tag.endswith("in21k") else "1k",
        fields={"norm_epsilon": 1e-6},
    )
