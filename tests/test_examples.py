"""The examples run."""

import runpy
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_variables, thin

from effnetv2_jax import save_pretrained
from effnetv2_jax.preprocessing import squashed

EXAMPLES = Path(__file__).parent.parent / "experiments" / "examples"


@pytest.mark.usefixtures("quick_compilation")
def test_a_frozen_backbone_serves_another_module(tmp_path: Path) -> None:
    model = thin(preprocessing=squashed(32))
    weights = save_pretrained(tmp_path / "weights", model, random_variables(model))
    example = runpy.run_path(str(EXAMPLES / "frozen_backbone.py"))
    accuracy = example["main"]([f"--weights={weights}", "--examples=64", "--steps=40"])
    # Features of random weights tell the classes apart better than chance, which is 1 in 6.
    assert accuracy > 0.2


@pytest.mark.usefixtures("quick_compilation")
def test_grad_cam_is_made_of_gradients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = thin(preprocessing=squashed(64), class_names=tuple("abcdefg"))
    variables = random_variables(model)
    example = runpy.run_path(str(EXAMPLES / "grad_cam.py"))
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    found = example["grad_cam"](model, variables, images, 3)
    assert found.shape == (2, 2, 3)

    # What is added to the last maps, to differentiate by it.
    def logit(added: jax.Array) -> jax.Array:
        def add(call, args, kwargs, context):  # type: ignore[no-untyped-def]
            out = call(*args, **kwargs)
            return out + added if context.module.path == ("head",) else out

        with nn.intercept_methods(add):
            logits: Any = model.apply(variables, images, train=False)
        return logits[:, 3].sum()

    maps = _last_maps(model, variables, images)
    gradient = jax.grad(logit)(jnp.zeros(maps.shape))
    expected = jax.nn.relu((maps * gradient.mean((1, 2), keepdims=True)).sum(-1))
    assert float(expected.max()) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

    weights = save_pretrained(tmp_path / "weights", model, variables)
    example["main"](str(weights), str(EXAMPLES.parents[1] / "tests" / "pictures" / "glass.jpg"))
    assert capsys.readouterr().out[0] in "abcdefg"


def _last_maps(model: Any, variables: Any, images: Any) -> jax.Array:
    """What the head makes of the last block's output."""
    bound = model.bind(variables)
    *_, last = bound._feature_maps(images, False, None)
    maps: jax.Array = bound.head(last, train=False)
    return maps


@pytest.mark.usefixtures("quick_compilation")
def test_the_nearest_neighbours_vote(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "nearest_neighbours.py"))
    known = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 3.0], [0.1, 1.0], [0.0, 0.5]])
    labels = np.array([0, 0, 1, 1, 1])
    asked = np.array([[5.0, 1.0], [0.3, 0.9]])
    assert example["nearest"](known, labels, asked, k=2).tolist() == [0, 1]
    model = thin(preprocessing=squashed(32))
    weights = save_pretrained(tmp_path / "weights", model, random_variables(model))
    assert example["main"](None, weights, 64) > 0.2  # Chance is 1 in 6.
