"""Channels and reductions of feature maps, as the maps have them."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from effnetv2_jax import create_model, feature_info
from effnetv2_jax.models.shapes import abstract_variables


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("efficientnetv2-b0", {"width": 0.1, "depth": 0.1}),
        pytest.param("resnet50", {}, marks=pytest.mark.slow),
        pytest.param("vit-ti16", {}, marks=pytest.mark.slow),
    ],
)
def test_it_is_what_the_maps_are(name: str, fields: dict[str, Any]) -> None:
    model = create_model(name, **fields)
    info = feature_info(model)
    images = jnp.zeros((2, 160, 96, 3))
    maps = jax.eval_shape(
        lambda variables: model.apply(variables, images, train=False, method="features"),
        abstract_variables(model),
    )
    assert list(info) == list(maps)
    for level, (channels, reduction) in info.items():
        assert maps[level].shape == (2, 160 // reduction, 96 // reduction, channels)
    assert feature_info(create_model(name, features_only=True, **fields)) == info


@pytest.mark.slow
def test_of_s_they_are_timms() -> None:
    info = feature_info(create_model("efficientnetv2-s"))
    assert [level.channels for level in info.values()] == [24, 48, 64, 160, 256]
    assert [level.reduction for level in info.values()] == [2, 4, 8, 16, 32]
