"""Vision transformers as a table: ViT (arXiv 2010.11929; 2106.10270 for Ti and S) and DeiT.

DeiT (arXiv 2012.12877, without distillation) is the same network, trained in another way and with
other preprocessing. All have patches of 16 pixels. A new variant is a new row of `VARIANTS`.
"""

import dataclasses

from effnetv2_jax.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What follows from the name of a vision transformer."""

    width: int
    """Channels of a token."""
    heads: int
    """Of the attention; they share the channels out."""
    depth: int = 12
    """Number of blocks."""
    patch: int = 16
    """Height and width of a token's patch of the picture, in pixels."""
    grid: int = 14
    """Patches along a side of the pictures whose positions it learns: 224 pixels have 14."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A named model."""

    architecture: Architecture
    preprocessing: Preprocessing
    """With which it is evaluated, unless its weights say otherwise."""


def _of(size: int, width: int, heads: int, depth: int, *, deit: bool) -> Variant:
    return Variant(
        architecture=Architecture(width=width, heads=heads, depth=depth, grid=size // 16),
        preprocessing=Preprocessing(
            image_size=size,
            # Nine tenths of the short side at 224 pixels, and all of it at 384.
            crop_padding=24 if size == 224 else 0,
            interpolation="bicubic",
            antialias=True,
            mean=IMAGENET_MEAN if deit else (127.5,) * 3,
            std=IMAGENET_STD if deit else (127.5,) * 3,
        ),
    )


_SIZES = {"ti": (192, 3, 12), "s": (384, 6, 12), "b": (768, 12, 12), "l": (1024, 16, 24)}
"""Width, heads and depth."""

VARIANTS = {
    **{f"vit-{size}16": _of(224, *shape, deit=False) for size, shape in _SIZES.items()},
    **{f"vit-{size}16-384": _of(384, *shape, deit=False) for size, shape in _SIZES.items()},
    **{f"deit-{size}": _of(224, *_SIZES[size], deit=True) for size in ("ti", "s", "b")},
    "deit-b-384": _of(384, *_SIZES["b"], deit=True),
}


def get_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
      ValueError: there is none; the message lists the names.
    """
    if name not in VARIANTS:
        raise ValueError(f"{name!r} is no vision transformer; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]
