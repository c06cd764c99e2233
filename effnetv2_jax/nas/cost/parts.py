"""A network as the blocks that its memory traffic is a sum of."""

import collections
import dataclasses
from collections.abc import Iterator

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import canonical


@dataclasses.dataclass(frozen=True)
class Part:
    """A block by itself, which several networks may have."""

    block: StageSpec
    """Its row, `repeats` being 1."""
    inputs: int
    """Channels of what it takes."""
    image_size: int
    """Height and width of what it takes, in pixels."""


@dataclasses.dataclass(frozen=True)
class Ends:
    """What stands before and after the blocks; it belongs to a table's constant."""

    stem: int
    """Channels."""
    outputs: int
    """Channels of the last block."""
    head: int
    """Channels."""


def table_of(model: ModelConfig) -> EfficientNetConfig:
    """A network with its table as it is built.

    Raises:
      ConfigError: it has none; only EfficientNet's networks are rows of blocks.
    """
    whole = canonical(model)
    if not isinstance(whole, EfficientNetConfig):
        raise ConfigError(
            f"{model.name} is no EfficientNet, whose blocks alone can be added up; measure its step"
        )
    return whole


def parts_of(model: ModelConfig, image_size: int) -> collections.Counter[Part]:
    """How often a network has each block; stages' first blocks differ from those that repeat them.

    Args:
      image_size: height and width of the images, in pixels.

    Raises:
      ConfigError: the network is no EfficientNet.
    """
    return collections.Counter(_blocks(table_of(model), image_size))


def ends_of(model: ModelConfig) -> Ends:
    """What a network has before and after its blocks.

    Raises:
      ConfigError: the network is no EfficientNet.
    """
    whole = table_of(model)
    rows = whole.stages or ()
    return Ends(whole.stem or 0, rows[-1].outputs, whole.head or 0)


def _blocks(whole: EfficientNetConfig, image_size: int) -> Iterator[Part]:
    inputs, size = whole.stem or 0, -(-image_size // 2)
    for row in whole.stages or ():
        for repeat in range(row.repeats):
            stride = 1 if repeat else row.stride
            # 0 and 0.0 are one block, and have to be kept under one key.
            block = dataclasses.replace(row, stride=stride, repeats=1, se_ratio=float(row.se_ratio))
            yield Part(block, inputs, size)
            inputs, size = row.outputs, -(-size // stride)
