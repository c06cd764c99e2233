"""Vision transformers, ViT and DeiT, with their names in other libraries."""

import dataclasses
from typing import Any

from effnetv2_jax.models.protocol import Family, Model
from effnetv2_jax.models.vit.config import ViTConfig
from effnetv2_jax.models.vit.variants import VARIANTS


def _build(config: ViTConfig, **fields: Any) -> Model:
    # Imported here for its JAX, which configs are read without.
    from effnetv2_jax.models.vit.model import ViT

    return ViT(config=config.resolved(), **fields)


def _thin(config: ViTConfig) -> ViTConfig:
    return dataclasses.replace(config, width=32, heads=2, depth=2, grid=4)


FAMILY = Family(
    name="vit",
    config=ViTConfig,
    variants={name: variant.preprocessing for name, variant in VARIANTS.items()},
    build=_build,
    thin=_thin,
    stem=("patches", "kernel"),
    libraries="effnetv2_jax.models.vit.names",
)
"""Weight decay is the protocol's default, kernels alone: as in DeiT, neither biases nor norms,
positions and class token decay."""
