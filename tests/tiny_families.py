"""Two small networks of families of their own: one without collections, and one with two."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from effnetv2_jax.models import registry
from effnetv2_jax.models.layers import dropout
from effnetv2_jax.models.protocol import Family, Model, ModelConfig
from effnetv2_jax.preprocessing import Preprocessing, squashed

CHANNELS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainConfig(ModelConfig):
    name: str = "tiny-plain"
    MIN_SIZE: ClassVar[int] = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingConfig(ModelConfig):
    name: str = "tiny-counting"
    MIN_SIZE: ClassVar[int] = 16


class _Network(nn.Module):
    config: ModelConfig
    num_classes: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None

    @property
    def min_size(self) -> int:
        return self.config.MIN_SIZE

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.config.dtype)


class Plain(_Network):
    """Patches, their mean and a classifier."""

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        x = nn.Conv(CHANNELS, (4, 4), 4, name="patches")(images)
        x = nn.gelu(x).mean((1, 2))
        if train:
            x = dropout(x, dropout_rate, self.make_rng("dropout"))
        return nn.Dense(self.num_classes, name="classifier")(x)


class Counting(_Network):
    """The same, less a moving mean in `moments`; counts training's calls in `counters`."""

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        x = nn.Conv(CHANNELS, (4, 4), 4, name="patches")(images)
        x = nn.gelu(x).mean((1, 2))
        mean = self.variable("moments", "mean", jnp.zeros, (CHANNELS,))
        calls = self.variable("counters", "calls", jnp.zeros, (), jnp.int32)
        x = x - mean.value
        if train:
            mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
            calls.value = calls.value + 1
            x = dropout(x, dropout_rate, self.make_rng("dropout"))
        return nn.Dense(self.num_classes, name="classifier")(x)


def family(config: type[ModelConfig], network: Callable[..., Model], name: str) -> Family:
    """A family of one model, of the same name."""

    def build(config: ModelConfig, **fields: Any) -> Model:
        return network(config=config, **fields)

    def thin(config: ModelConfig) -> ModelConfig:
        return config

    return Family(name=name, config=config, variants={name: squashed(32)}, build=build, thin=thin)


@pytest.fixture
def families() -> Iterator[None]:
    """Both are registered for the length of a test."""
    registry.list_models()  # Our own families are there from then on, after the test too.
    with mock.patch.dict(registry._families):
        registry.register(family(PlainConfig, Plain, "tiny-plain"))
        registry.register(family(CountingConfig, Counting, "tiny-counting"))
        yield
