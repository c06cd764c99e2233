"""EfficientNet: V2 and its predecessor, with their names in other libraries."""

import dataclasses
from typing import Any

from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import VARIANTS
from effnetv2_jax.models.protocol import Family, Model


def _build(config: EfficientNetConfig, **fields: Any) -> Model:
    # Imported here for its JAX, which configs are read without.
    from effnetv2_jax.models.efficientnet.model import build

    return build(config, **fields)


def _thin(config: EfficientNetConfig) -> EfficientNetConfig:
    # A shortened run has 16 examples in a batch.
    return dataclasses.replace(config, width=0.25, depth=0.1, bn_group=config.bn_group and 8)


FAMILY = Family(
    name="efficientnet",
    config=EfficientNetConfig,
    variants={name: variant.preprocessing for name, variant in VARIANTS.items()},
    build=_build,
    thin=_thin,
    stem=("stem", "conv", "kernel"),
    libraries="effnetv2_jax.models.efficientnet.names",
)
