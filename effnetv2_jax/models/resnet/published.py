"""ResNets' published weights, hosted by timm on the Hugging Face Hub.

The preprocessing is that with which timm's tables of results measure them at the size of their
training, and torchvision's second recipe at 224 pixels.
"""

from effnetv2_jax.models.libraries import Published
from effnetv2_jax.models.resnet.variants import VARIANTS, centre
from effnetv2_jax.preprocessing import Preprocessing

_A1, _TORCHVISION = centre(224, 0.95, "bicubic"), centre(224, 0.875, "bilinear")
_TORCHVISION_2 = centre(224, 0.965, "bilinear")
_PLAIN = {"a1-in1k": _A1, "tv-in1k": _TORCHVISION, "tv2-in1k": _TORCHVISION_2}

_PREPROCESSING: dict[str, dict[str, Preprocessing]] = {
    "resnet50": _PLAIN,
    "resnet101": _PLAIN,
    "resnet152": _PLAIN,
    "resnet50d": {"a1-in1k": _A1, "ra2-in1k": centre(224, 0.875, "bicubic")},
    "resnet101d": {"ra2-in1k": centre(256, 0.95, "bicubic")},
    "resnet152d": {"ra2-in1k": centre(256, 0.95, "bicubic")},
    **{
        name: {"in1k": variant.preprocessing}
        for name, variant in VARIANTS.items()
        if name.startswith("resnetrs")
    },
}

TAGS = {name: tuple(tags) for name, tags in _PREPROCESSING.items()}
"""`in1k`: the authors' own, on ImageNet. `tv`, `tv2`: torchvision's, by its first and its second
recipe; `a1`: of "ResNet strikes back" (arXiv 2110.00476); `ra2`: timm's, with RandAugment."""


def published(name: str, tag: str) -> Published | None:
    """The published weights of a model, if it has any of that tag; `_` may stand for `-`."""
    tag = "in1k" if tag == "tf_in1k" else tag.replace("_", "-")
    preprocessing = _PREPROCESSING.get(name, {}).get(tag)
    if preprocessing is None:
        return None
    theirs = "tf_in1k" if tag == "in1k" else tag.replace("-", "_")
    return Published(
        repository=f"timm/{name}.{theirs}",
        preprocessing=preprocessing,
        classes="1k",
        fields={"bn_epsilon": 1e-5},
    )
