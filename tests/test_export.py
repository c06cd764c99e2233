"""A model as one file that runs without its code."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from random_weights import random_variables, thin

from effnetv2_jax import export_model
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
    preprocessing = MODEL.preprocessing
    mean, std = np.array([preprocessing.mean, preprocessing.std], np.float32)
    normalized = (images - mean) / std
    logits = jax.jit(MODEL.apply)(VARIABLES, normalized.astype(np.float32))
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
