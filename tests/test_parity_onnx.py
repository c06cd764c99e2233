"""ONNX Runtime gives the logits of the model that was exported."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from random_weights import calibrated, random_variables

from effnetv2_jax import create_model, export_onnx
from effnetv2_jax.preprocessing import Preprocessing

onnx = pytest.importorskip("onnx", reason="it reads what was exported")
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


SMALL: list[tuple[str, dict[str, Any]]] = [
    ("efficientnetv2-b0", {"width": 0.1, "depth": 0.1}),
    ("resnet50", {"width": 8, "repeats": (1, 1)}),
    ("vit-ti16", {"depth": 1, "width": 24}),
]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 5), np.uint8)


def normalized(model: Any, pixels: np.ndarray) -> np.ndarray:
    mean, std = np.array([model.preprocessing.mean, model.preprocessing.std], np.float32)
    images: np.ndarray = (pixels - mean) / std
    return images


@pytest.mark.parametrize("opset", [17, 20, None, onnx.defs.onnx_opset_version()])
@pytest.mark.parametrize(("name", "fields"), SMALL)
def test_every_opset_gives_the_same(
    name: str, fields: dict[str, Any], opset: int | None, tmp_path: Path
) -> None:
    names = tuple("abcd\u00e9")
    model = create_model(name, num_classes=5, input_channels=5, class_names=names, **fields)
    variables, path = random_variables(model), tmp_path / "model.onnx"
    options: dict[str, Any] = {"image_size": 64, "opset": opset}
    if name == "vit-ti16" and opset == 17:
        with pytest.raises(ValueError, match=r"no valid form in opset 17: .*Gelu"):
            export_onnx(path, model, variables, **options)
        return
    session = onnxruntime.InferenceSession(export_onnx(path, model, variables, **options))
    assert opset is None or opset in {each.version for each in onnx.load(path).opset_import}
    (found,) = session.run(None, {"images": PIXELS})
    expected = np.asarray(model.apply(variables, normalized(model, PIXELS)))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    stated = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(stated["class_names"])) == names
    assert Preprocessing.from_json(json.loads(stated["preprocessing"])) == model.preprocessing


@pytest.mark.parametrize(("name", "fields"), SMALL)
def test_feature_maps_are_outputs(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    model = create_model(name, features_only=True, input_channels=5, **fields)
    variables = random_variables(model)
    path = export_onnx(tmp_path / "maps.onnx", model, variables, image_size=64, features=True)
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_outputs()]
    expected = model.apply(variables, normalized(model, PIXELS))
    assert names == sorted(expected)
    for key, value in zip(names, session.run(None, {"images": PIXELS}), strict=True):
        scale = np.abs(expected[key]).max()
        assert np.abs(value - expected[key]).max() < 1e-5 * scale


def test_the_size_may_be_left_open(tmp_path: Path) -> None:
    name, fields = SMALL[0]
    model = create_model(name, num_classes=5, padding="symmetric", **fields)
    variables = random_variables(model)
    path = export_onnx(tmp_path / "model.onnx", model, variables, any_size=True)
    session = onnxruntime.InferenceSession(path)
    for size in ((32, 57), (64, 64)):
        pixels = PIXELS[:, : size[0], : size[1], :3]
        expected = np.asarray(model.apply(variables, normalized(model, pixels)))
        (found,) = session.run(None, {"images": pixels})
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    for other, its in SMALL:
        fixed = create_model(other, num_classes=5, **its)
        with pytest.raises(ValueError, match="cannot be exported for any image size"):
            export_onnx(path, fixed, random_variables(fixed), any_size=True)
