"""ResNet, its D form and ResNet-RS, with their names in other libraries."""

import dataclasses
from typing import Any

from effnetv2_jax.models.protocol import Family, Model
from effnetv2_jax.models.resnet.config import ResNetConfig
from effnetv2_jax.models.resnet.variants import VARIANTS


def _build(config: ResNetConfig, **fields: Any) -> Model:
    # Imported here for its JAX, which configs are read without.
    from effnetv2_jax.models.resnet.model import build

    return build(config, **fields)


def _thin(config: ResNetConfig) -> ResNetConfig:
    # A shortened run has 16 examples in a batch.
    return dataclasses.replace(
        config, width=8, repeats=(1, 1, 1, 1), bn_group=config.bn_group and 8
    )


FAMILY = Family(
    name="resnet",
    config=ResNetConfig,
    variants={name: variant.preprocessing for name, variant in VARIANTS.items()},
    build=_build,
    thin=_thin,
    stem=("stem_0", "conv", "kernel"),
    libraries="effnetv2_jax.models.resnet.names",
)
