"""timm takes models of other channels than RGB, and adapts weights to them as is done here."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_variables

from effnetv2_jax import create_model, load_pretrained, save_pretrained
from effnetv2_jax.models.libraries import interchange_of
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.weights.convert import to_library

torch = pytest.importorskip("torch", reason="timm's models are PyTorch's")
import torch_models  # noqa: E402, F401  It lets timm be imported.

timm = pytest.importorskip("timm", reason="the reference models are timm's")

pytestmark = pytest.mark.parity

NAMES = [
    "efficientnetv2-b0",
    pytest.param("resnet50", marks=pytest.mark.slow),
    pytest.param("resnetrs50", marks=pytest.mark.slow),
    "vit-ti16",
]


def logits_of_timm(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return found


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_adapted_as_timm_adapts_them(name: str, channels: int, tmp_path: Path) -> None:
    rgb = create_model(name, num_classes=3)
    save_pretrained(tmp_path, rgb, random_variables(rgb))
    place = f"local-dir:{tmp_path}"
    theirs = timm.create_model(place, pretrained=True, in_chans=channels).state_dict()
    model, variables = load_pretrained(None, tmp_path, input_channels=channels)
    interchange = interchange_of(family_of(name))
    assert interchange is not None
    library = interchange.library("timm")
    assert library is not None
    for key, array in to_library(model, variables, library).items():
        np.testing.assert_array_equal(array, theirs[key].numpy(), err_msg=key)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_timm_loads_a_saved_model(name: str, channels: int, tmp_path: Path) -> None:
    model = create_model(name, num_classes=3, input_channels=channels)
    variables = random_variables(model)
    save_pretrained(tmp_path, model, variables)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    size = 224 if name.startswith("vit") else 64
    images = np.random.default_rng(0).normal(size=(2, size, size, channels)).astype(np.float32)
    ours = model.apply(variables, jnp.asarray(images), train=False)
    expected = logits_of_timm(theirs, images)
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
    assert timm.data.resolve_model_data_config(theirs)["input_size"][0] == channels
    assert len(theirs.pretrained_cfg["mean"]) == channels
