"""A model as one file that runs without its code."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from random_weights import random_variables, thin

from effnetv2_jax import create_model, export_model
from effnetv2_jax.preprocessing import cropped

pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")

MODEL = thin(preprocessing=cropped(40))
VARIABLES = random_variables(MODEL)

SCRIPT = """
import sys
import numpy as np
from jax import export
loaded = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
for batch in (1, 3):
    np.save(f"{sys.argv[1]}.{batch}.npy", loaded.call(np.load(sys.argv[2])[:batch]))
assert not any(name.startswith(("effnetv2_jax", "flax")) for name in sys.modules)
"""


def test_the_file_gives_the_models_logits_for_any_batch(tmp_path: Path) -> None:
    exported = export_model(MODEL, VARIABLES)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    file, pixels = tmp_path / "model.stablehlo", tmp_path / "pixels.npy"
    file.write_bytes(exported.serialize())
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    np.save(pixels, images)
    subprocess.run([sys.executable, "-c", SCRIPT, file, pixels], check=True)
    logits = jax.jit(MODEL.apply)(VARIABLES, preprocessed(images))
    for batch in (1, 3):
        found = np.load(f"{file}.{batch}.npy")
        np.testing.assert_allclose(found, logits[:batch], rtol=1e-4, atol=1e-5)


def test_a_model_without_logits_is_an_error() -> None:
    with pytest.raises(ValueError, match="no logits"):
        export_model(MODEL.clone(features_only=True), VARIABLES)


def test_size_and_platforms_may_be_chosen() -> None:
    exported = export_model(MODEL, VARIABLES, image_size=33, platforms=["tpu"])
    assert exported.platforms == ("tpu",)
    (images,) = exported.in_avals
    assert images.shape[1:] == (33, 33, 3)


@pytest.mark.slow
def test_the_size_may_be_left_open() -> None:
    exported = export_model(MODEL, VARIABLES, any_size=True, platforms=["cpu"])
    for size in ((32, 57), (64, 64)):
        images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
        fixed: Any = MODEL.apply(VARIABLES, preprocessed(images))
        np.testing.assert_allclose(exported.call(images), fixed, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="image_size is 40, and any_size"):
        export_model(MODEL, VARIABLES, any_size=True, image_size=40)
    vit = create_model("vit-ti16", depth=1, width=24)
    with pytest.raises(ValueError, match="vit-ti16 cannot be exported for any image size"):
        export_model(vit, random_variables(vit), any_size=True)


@pytest.mark.slow
def test_feature_maps_are_exported() -> None:
    exported = export_model(MODEL, VARIABLES, features=True, platforms=["cpu"])
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    found = exported.call(images)
    expected: Any = MODEL.apply(VARIABLES, preprocessed(images), method="features")
    assert found.keys() == expected.keys() == {f"reduction_{n}" for n in range(1, 6)}
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def preprocessed(images: np.ndarray) -> np.ndarray:
    mean, std = np.array([MODEL.preprocessing.mean, MODEL.preprocessing.std], np.float32)
    normalized: np.ndarray = (images - mean) / std
    return normalized
