"""Keras's weights, read from every kind of file it has written, and written for it."""

import contextlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_weights import random_variables

from effnetv2_jax import EfficientNet, create_model, load_pretrained, save_pretrained
from effnetv2_jax.models.efficientnet.names import KERAS
from effnetv2_jax.weights.convert import from_library, to_library
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.keras_files import read_keras, to_keras

keras = pytest.importorskip("keras", reason="it writes the files")
if keras.backend.backend() != "jax":
    pytest.skip("Keras was loaded with another backend than JAX", allow_module_level=True)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings(  # Keras raises it while saving, with NumPy 2
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]

CLASSES = 10
IMAGES = (32, 32, 3)
Write = Callable[[Any, Path], Path]


@pytest.fixture(autouse=True, scope="module")
def no_random_initialization() -> Iterator[None]:
    """Keras compiles it anew for every shape, which takes ten times as long as all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keras.initializers.VarianceScaling,
            "__call__",
            lambda self, shape, dtype=None: np.zeros(shape, dtype or "float32"),
        )
        yield


def randomize(model: Any) -> None:
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.random(weight.shape, np.float32))


def truth(model: Any) -> dict[str, np.ndarray]:
    """Arrays by layer and variable, from what a model says itself."""
    return {
        f"{layer.name}/{weight.name}": np.asarray(weight.value)
        for layer in model.layers
        for weight in layer.weights
    }


def assert_same(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.fixture(scope="module")
def b0() -> Any:
    """Keras's B0, the only variant of these tests that normalises its images."""
    keras.utils.clear_session()
    model = keras.applications.EfficientNetV2B0(
        weights=None, classes=CLASSES, classifier_activation=None, input_shape=IMAGES
    )
    randomize(model)
    return model


@pytest.fixture(scope="module")
def nested() -> Any:
    """A backbone within a model."""
    keras.utils.clear_session()
    layers = keras.layers
    backbone = keras.applications.EfficientNetV2B0(
        weights=None, include_top=False, include_preprocessing=False, input_shape=IMAGES
    )
    predictions = layers.Dense(CLASSES, name="predictions")
    model = keras.Sequential(
        [keras.Input(IMAGES), backbone, layers.GlobalAveragePooling2D(), predictions]
    )
    randomize(model)
    return model


def archive(model: Any, folder: Path) -> Path:
    model.save(path := folder / "model.keras")
    return path


def weights_file(model: Any, folder: Path) -> Path:
    model.save_weights(path := folder / "model.weights.h5")
    return path


def legacy_model(model: Any, folder: Path) -> Path:
    model.save(path := folder / "model.h5")
    return path


def legacy_weights(model: Any, folder: Path) -> Path:
    """As keras.applications hosts them."""
    path = folder / "published.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            weights = {
                f"{layer.name}/{'depthwise_' * depthwise}{weight.name}:0": np.asarray(weight.value)
                for weight in layer.weights
            }
            if isinstance(layer, keras.layers.Normalization):
                weights = {"mean:0": np.zeros(3), "variance:0": np.ones(3), "count:0": np.array(0)}
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                group[name] = array
    return path


def nameless_weights(model: Any, folder: Path) -> Path:
    """As Keras wrote them before version 3.6."""
    with h5py.File(path := weights_file(model, folder), "r+") as file:
        groups: list[Any] = []
        file.visititems(lambda _, item: groups.append(item))
        for group in groups:
            group.attrs.pop("name", None)
    return path


def nameless_archive(model: Any, folder: Path) -> Path:
    with zipfile.ZipFile(archive(model, folder)) as original:
        config = original.read("config.json")
    with zipfile.ZipFile(path := folder / "nameless.keras", "w") as file:
        file.writestr("config.json", config)
        file.write(nameless_weights(model, folder), "model.weights.h5")
    return path


def tensorflow_2_13(model: Any, folder: Path) -> Path:
    with h5py.File(path := nameless_weights(model, folder), "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    return path


FILES = (archive, weights_file, legacy_model, legacy_weights)
OLD_FILES = (nameless_archive, nameless_weights, tensorflow_2_13)


@pytest.mark.parametrize("write", [*FILES, *OLD_FILES])
def test_every_kind_of_file_is_read(write: Write, b0: Any, tmp_path: Path) -> None:
    assert_same(read_keras(write(b0, tmp_path)), truth(b0))


def test_a_live_model_is_read(b0: Any) -> None:
    arrays = read_keras(b0)
    assert_same(arrays, truth(b0))
    model = create_model("efficientnetv2-b0", num_classes=CLASSES)
    assert_same(to_library(model, from_library(model, arrays, KERAS), KERAS), truth(b0))


def test_a_live_model_of_keras_2_is_read() -> None:
    class Variable(SimpleNamespace):
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return kernel

    kernel = np.ones((3, 3, 8, 1), np.float32)
    names = ("block4a_dwconv2/depthwise_kernel:0", "normalization/mean:0", "count:0")
    model = SimpleNamespace(weights=[Variable(name=name) for name in names])
    assert_same(read_keras(model), {"block4a_dwconv2/kernel": kernel})


@pytest.mark.parametrize("write", [archive, weights_file, legacy_model, nameless_archive])
def test_a_model_within_a_model_is_read(write: Write, nested: Any, tmp_path: Path) -> None:
    backbone = nested.get_layer("efficientnetv2-b0")
    predictions = {name: array for name, array in truth(nested).items() if "predictions" in name}
    expected = truth(backbone) | predictions
    assert_same(read_keras(nested), expected)
    assert_same(read_keras(write(nested, tmp_path)), expected)


def test_a_file_that_names_no_layers_needs_a_published_variant(
    nested: Any, b0: Any, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"which layers .* save the whole model as \.keras"):
        read_keras(nameless_weights(nested, tmp_path))
    with h5py.File(path := nameless_weights(b0, tmp_path), "r+") as file:
        variables = file["layers/batch_normalization/vars"]
        for index in range(4):
            del variables[str(index)]
            variables[str(index)] = np.ones(33, np.float32)
    with pytest.raises(WeightsError, match=r"model\.weights\.h5: it does not say which layers"):
        read_keras(path)


def test_a_folder_saved_for_keras_comes_back_with_what_belongs_to_it(tmp_path: Path) -> None:
    names = tuple("abcdefghij")
    model = create_model("efficientnetv2-b0", num_classes=CLASSES, class_names=names)
    variables = random_variables(model)
    folder = save_pretrained(tmp_path, model, variables, library="keras")
    found, loaded = load_pretrained(None, folder)
    assert (found, found.class_names) == (model, names)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    live = keras.saving.load_model(folder / "model.keras")
    _, loaded = load_pretrained("efficientnetv2-b0", live)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("b0", 0),
        ("b0", 7),
        ("s", 7),
        *(pytest.param(name, 7, marks=pytest.mark.slow) for name in ("b1", "b2", "b3")),
        *(pytest.param(name, 7, marks=pytest.mark.long) for name in ("m", "l")),
    ],
)
def test_there_and_back_every_array_is_the_same(name: str, classes: int, tmp_path: Path) -> None:
    model = create_model(f"efficientnetv2-{name}", num_classes=classes)
    variables = random_variables(model)
    theirs = to_keras(model, variables)
    assert_same(truth(theirs), to_library(model, variables, KERAS))
    for write in (archive, nameless_weights):
        arrays = read_keras(write(theirs, tmp_path))
        assert_same(arrays, truth(theirs))
    back = from_library(model, arrays, KERAS)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (create_model("efficientnetv2-xl"), "Keras has no efficientnetv2-xl; it has .*v2-l$"),
        (create_model("efficientnet-b0"), "Keras has no efficientnet-b0; it has efficientnetv2-b0"),
        (create_model("efficientnetv2-b0", width=0.5), "width is 0.5, but its EfficientNetV2B0"),
        (
            create_model("efficientnetv2-b0", bn_epsilon=1e-5),
            "bn_epsilon is 1e-05, but",
        ),
        (create_model("efficientnetv2-b0", padding="symmetric"), "padding is 'symmetric', but its"),
        (create_model("efficientnetv2-b0", features_only=True), "without features_only"),
    ],
)
def test_models_that_keras_does_not_have(model: EfficientNet, complaint: str) -> None:
    with pytest.raises(WeightsError, match=complaint):
        to_keras(model, {})


def test_variables_of_another_shape() -> None:
    model = create_model("efficientnetv2-b0", num_classes=3)
    variables = random_variables(model.clone(num_classes=4))
    with pytest.raises(WeightsError, match=r"classifier/kernel \(\(1280, 4\), not \(1280, 3\)\)"):
        to_keras(model, variables)


def test_without_keras_writing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    model = create_model("efficientnetv2-b0")
    with pytest.raises(WeightsError, match="pip install keras"):
        to_keras(model, random_variables(model))


def test_reading_runs_no_code_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Lambda(lambda x: x + 1), layers.Dense(3, name="predictions")]
    )
    files = [write(model, tmp_path) for write in (archive, weights_file, legacy_model)]
    expected = truth(model)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("keras", "pickle")]:
        monkeypatch.setitem(sys.modules, name, None)
    for file in files:
        assert_same(read_keras(file), expected)


def test_what_is_not_there_or_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.keras: .*No such file"):
        read_keras(tmp_path / "missing.keras")
    with pytest.raises(WeightsError, match="Is a directory"):
        read_keras(tmp_path)
    with pytest.raises(WeightsError, match="3 is neither a path nor a Keras model"):
        read_keras(3)
    with pytest.raises(WeightsError, match="there are no weights"):
        read_keras(SimpleNamespace(weights=[]))


def test_files_that_are_none_of_keras(b0: Any, tmp_path: Path) -> None:
    def refused(content: bytes, message: str) -> None:
        (path := tmp_path / "file").write_bytes(content)
        with pytest.raises(WeightsError, match=f"from {path}: .*{message}"):
            read_keras(path)

    def zipped(**files: bytes) -> bytes:
        with zipfile.ZipFile(content := io.BytesIO(), "w") as file:
            for name, data in files.items():
                file.writestr(name.replace("__", "."), data)
        return content.getvalue()

    refused(b"", "")
    refused(b"neither", "file signature not found")
    refused(b"PK", "not a zip file")
    refused(zipped(other=b""), "no item named 'config.json'")
    refused(zipped(config__json=b"{}"), "no item named 'model.weights.h5'")
    refused(zipped(config__json=b"{", model__weights__h5=b""), "Expecting property name")
    whole = weights_file(b0, tmp_path).read_bytes()
    refused(whole[: len(whole) // 2], "truncated file")
    whole = archive(b0, tmp_path).read_bytes()
    refused(whole[: len(whole) // 2], "not a zip file")
    with h5py.File(tmp_path / "empty", "w"):
        pass
    refused((tmp_path / "empty").read_bytes(), "there are no weights")


def test_a_file_cannot_reach_outside_or_fill_the_memory(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            read_keras(path)

    path = tmp_path / "model.weights.h5"
    (tmp_path / "secret").write_bytes(bytes(64))
    place = "layers/conv2d/vars/0"
    with h5py.File(path, "w") as file:
        file.create_dataset(place, (1, 1, 2, 3), "f4", external=[(tmp_path / "secret", 0, 24)])
        file["layers/conv2d/vars"].attrs["name"] = "stem_conv"
    refused("lies in another file")
    with h5py.File(path, "w") as file:
        file.create_dataset(place, (1, 1, 1 << 20, 1 << 20), "f4", chunks=(1, 1, 8, 8))
        file["layers/conv2d/vars"].attrs["name"] = "stem_conv"
    refused("has 4398046511104 bytes")
    with h5py.File(other := tmp_path / "other.h5", "w") as file:
        file["array"] = np.zeros((1, 1, 2, 3), np.float32)
    with h5py.File(path, "w") as file:
        file[place] = file["model_weights"] = h5py.ExternalLink(other, "array")
    refused("there are no weights")


def small_files() -> list[bytes]:
    """Without strings of varying length: HDF5 itself crashes or hangs where those are damaged."""
    kernel, vector = np.ones((1, 1, 2, 3), np.float32), np.ones(3, np.float32)
    with h5py.File(weights := io.BytesIO(), "w") as file:
        file["layers/conv2d/vars/0"] = kernel
        for index in range(4):
            file[f"layers/batch_normalization/vars/{index}"] = vector
    with h5py.File(legacy := io.BytesIO(), "w") as file:
        file.attrs["layer_names"] = [b"stem_conv"]
        file["stem_conv/stem_conv/kernel:0"] = kernel
    layers = [
        {"class_name": kind, "config": {"name": name}}
        for kind, name in (("Conv2D", "stem_conv"), ("BatchNormalization", "stem_bn"))
    ]
    with zipfile.ZipFile(zipped := io.BytesIO(), "w") as file:
        file.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        file.writestr("model.weights.h5", weights.getvalue())
    return [weights.getvalue(), legacy.getvalue(), zipped.getvalue()]


SMALL = small_files()


def test_small_files_are_whole(tmp_path: Path) -> None:
    for content, count in zip(SMALL[1:], (1, 5), strict=True):
        (path := tmp_path / "file").write_bytes(content)
        assert len(read_keras(path)) == count


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    content=st.sampled_from(SMALL),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    length=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_files_raise_one_error(
    content: bytes, changes: list[tuple[float, int]], length: float, tmp_path: Path
) -> None:
    damaged = bytearray(content)
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    (path := tmp_path / "file").write_bytes(damaged[: int(length * len(damaged))])
    with contextlib.suppress(WeightsError):
        read_keras(path)
