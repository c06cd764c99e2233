"""ONNX Runtime gives the logits of the model that was exported."""

from pathlib import Path

import jax
import numpy as np
import pytest
from random_weights import calibrated, random_variables

from effnetv2_jax import create_model, export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="it runs what was exported")
pytest.importorskip("jax2onnx", reason="it does the conversion")

pytestmark = [
    pytest.mark.parity,
    # Of jax2onnx and what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("efficientnetv2-b0", 65),
        ("efficientnet-b0", 64),
        pytest.param("efficientnetv2-s", 64, marks=pytest.mark.long),
    ],
)
def test_logits_equal_for_any_batch(name: str, size: int, tmp_path: Path) -> None:
    model = create_model(name, num_classes=10)
    # Half of the images dark, half bright, so that logits differ.
    pixels = np.random.default_rng(0).integers(0, 128, (4, size, size, 3), np.uint8)
    pixels[::2] += 128
    mean, std = np.array([model.preprocessing.mean, model.preprocessing.std], np.float32)
    images = (pixels - mean) / std
    variables = calibrated(model, random_variables(model), images)
    path = export_onnx(tmp_path / "model.onnx", model, variables, image_size=size)
    session = onnxruntime.InferenceSession(path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type) == ("images", "tensor(uint8)")
    assert taken.shape[1:] == [size, size, 3]
    assert (given.name, given.type) == ("logits", "tensor(float)")
    expected = np.asarray(jax.jit(model.apply)(variables, images))
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * scale
    for batch in (1, 4):
        (found,) = session.run(None, {"images": pixels[:batch]})
        assert np.abs(found - expected[:batch]).max() < 1e-4 * scale
