"""Keras's weights: read from its files or a live model, and written as a model of its own.

Files are read with h5py alone. No model is built from them, so nothing in them can run.
"""

import io
import json
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.libraries import Kind, interchange_of, interchanges
from effnetv2_jax.models.protocol import Model, gives_features
from effnetv2_jax.models.registry import family_of_model, model_of
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.weights.convert import to_library
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import NoCounterpartError, counterpart

if TYPE_CHECKING:
    import keras

LAYERS: dict[Kind, str] = {
    "conv": "conv2d",
    "gate": "conv2d",
    "depthwise": "depthwise_conv2d",
    "bn": "batch_normalization",
    "dense": "dense",
}
"""What a file calls layers of a kind, before it numbers them."""
VARIABLES = {
    (4,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2, 1): ("kernel", "bias"),
    (1, 1, 1, 1): ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""By the ranks of a layer's arrays their names, which a file replaces with numbers."""
KNOWN = {name for names in VARIABLES.values() for name in names}
OLD_LAYERS = "_layer_checkpoint_dependencies"
"""What TensorFlow 2.13 called a file's group of `layers`."""
LARGEST_ARRAY = 1 << 30
"""Bytes; a damaged or hostile file of a few bytes can declare arrays of any size."""
LARGEST_RATIO = 100
"""Of an archive's contents to its size; weights hardly compress."""


def read_keras(source: str | os.PathLike[str] | Any) -> dict[str, np.ndarray]:
    """The arrays of all convolutions, BatchNorms and dense layers, under Keras's names.

    Args:
      source: a Keras model, or the path of a `.keras` archive, a `.weights.h5` file or an HDF5 file
        as Keras 2 wrote them, of a whole model or of weights. Models within models are found.

    Returns:
      Arrays by `<layer>/<variable>`, such as `block1a_project_conv/kernel`, in Keras's layouts and
      the source's dtypes.

    Raises:
      WeightsError: there is no such file, it is none of Keras's, it is damaged, it has no weights,
        or it does not say which layers they belong to.
    """
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "weights"):
            raise WeightsError(f"{source!r} is neither a path nor a Keras model")
        return _collect(_live_arrays(source))
    path = os.fspath(source)
    try:
        with open(path, "rb") as file:
            return _collect(_file_arrays(file))
    except Exception as error:  # Of damaged files, zipfile and h5py raise nearly anything.
        raise WeightsError(f"cannot read Keras's weights from {path}: {error}") from error


def to_keras(model: Model, variables: Mapping[str, Any]) -> "keras.Model":
    """Keras's own model of the same network, with a model's weights.

    Args:
      model: of a network that keras.applications has (EfficientNetV2 B0 to B3, S, M and L), of any
        number of classes, also none.
      variables: `{"params": ..., "batch_stats": ...}`.

    Returns:
      A model of keras.applications that takes images normalised as ours are and gives logits, or
      pooled features. Its variables have Keras's default dtype, float32.

    Raises:
      WeightsError: Keras has no such network, `variables` do not fit it, or there is no Keras.
    """
    interchange = interchange_of(family_of_model(model))
    library = interchange.library("keras") if interchange else None
    if library is None:
        raise WeightsError(f"Keras has no {model.config.name}")
    if gives_features(model):
        raise WeightsError("load the model without features_only to give it to Keras")
    if model.config.input_channels != 3:
        raise WeightsError("Keras's networks here take 3 channels (input_channels)")
    try:
        builder = counterpart(model.config, library).name
    except NoCounterpartError as error:
        raise WeightsError(str(error)) from None
    assert builder is not None, "Keras's networks differ from ours in nothing"
    arrays = to_library(model, variables, library)
    try:
        import keras
    except ImportError as error:
        raise WeightsError(
            "this needs Keras and its backend: pip install keras, and set KERAS_BACKEND=jax before "
            f"Keras is first imported ({error})"
        ) from error
    top: dict[str, Any] = {"include_top": False, "pooling": "avg"}
    if model.num_classes:
        top = {"classes": model.num_classes, "classifier_activation": None}
    build = getattr(keras.applications, builder)
    theirs = build(weights=None, include_preprocessing=False, **top)
    weights = {_name(weight): weight for weight in theirs.weights}
    faults = sorted(weights.keys() ^ arrays.keys()) or [
        f"{name} ({array.shape}, not {tuple(weights[name].shape)})"
        for name, array in arrays.items()
        if array.shape != tuple(weights[name].shape)
    ]
    if faults:
        raise WeightsError(f"the variables do not fit keras.applications.{builder}: {faults}")
    for name, array in arrays.items():
        weights[name].assign(array.astype(weights[name].dtype))
    return theirs


def _collect(named: Iterable[tuple[str, str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for layer, variable, array in named:
        name = f"{layer}/{variable}"
        if name in arrays:
            raise WeightsError(f"more than one array is called {name}")
        arrays[name] = array
    if not arrays:
        raise WeightsError("there are no weights of convolutions, BatchNorms or dense layers")
    return arrays


def _live_arrays(model: Any) -> Iterator[tuple[str, str, np.ndarray]]:
    for weight in model.weights:
        layer, variable = _name(weight).split("/")
        if variable in KNOWN:
            yield layer, variable, np.asarray(weight)


def _name(weight: Any) -> str:
    """`<layer>/<variable>` of a live variable; only those of Keras 3 have a path."""
    path: str = getattr(weight, "path", weight.name)
    layer, _, variable = path.rpartition("/")
    return f"{layer.rpartition('/')[2]}/{_modern(variable)}"


def _modern(variable: str) -> str:
    """Keras 3's name: Keras 2 says `kernel:0`, and `depthwise_kernel:0`."""
    return variable.removesuffix(":0").removeprefix("depthwise_")


def _file_arrays(file: BinaryIO) -> Iterator[tuple[str, str, np.ndarray]]:
    weights: BinaryIO = file
    config = None
    zipped = file.read(2) == b"PK"
    file.seek(0)
    if zipped:
        with zipfile.ZipFile(file) as archive:
            config = json.loads(_member(archive, "config.json"))
            weights = io.BytesIO(_member(archive, "model.weights.h5"))
    with h5py.File(weights, "r") as h5:
        whole_model = isinstance(h5.get("model_weights", getlink=True), h5py.HardLink)
        group = h5["model_weights"] if whole_model else h5
        # The second where Keras split a list that was too long.
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            yield from _legacy_arrays(group)
        else:
            yield from _numbered_arrays(h5, config)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST_ARRAY and info.file_size > LARGEST_RATIO * info.compress_size:
        raise ValueError(f"{name} would unpack to {info.file_size} bytes")
    return archive.read(info)


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """All of a group by their paths. Links to elsewhere, as into other files, are not followed."""
    found = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[path.replace(OLD_LAYERS, "layers")] = item

    group.visititems(visit)
    return found


def _array(dataset: h5py.Dataset) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} lies in another file")
    if dataset.nbytes > LARGEST_ARRAY:
        raise ValueError(f"{dataset.name} has {dataset.nbytes} bytes")
    array = dataset[()]
    # HDF5 has no bfloat16, and gives its bytes back without a type.
    return array.view(jnp.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else array


def _legacy_arrays(group: h5py.Group) -> Iterator[tuple[str, str, np.ndarray]]:
    """From paths such as `stem_conv/stem_conv/kernel:0`: a layer, and the name of its variable.

    Variables need not be named after their layer, but those of a model within the model, which
    counts as one layer, are.
    """
    layers: dict[str, list[tuple[str, str, Any]]] = defaultdict(list)
    for path, dataset in _datasets(group).items():
        layer, _, rest = path.partition("/")
        owner, _, variable = rest.rpartition("/")
        layers[layer].append((owner.rpartition("/")[2], _modern(variable), dataset))
    for layer, variables in layers.items():
        nested = len({owner for owner, _, _ in variables}) > 1
        for owner, variable, dataset in variables:
            if variable in KNOWN:
                yield owner if nested else layer, variable, _array(dataset)


def _numbered_arrays(h5: h5py.File, config: Any) -> Iterator[tuple[str, str, np.ndarray]]:
    """From paths such as `layers/conv2d_3/vars/0`.

    Names of layers are in an archive's `config` and, since Keras 3.6, beside the arrays. The former
    go first, because HDF5 crashes on some files in which the latter are damaged.
    """
    numbered: dict[str, dict[int, Any]] = defaultdict(dict)
    for path, dataset in _datasets(h5).items():
        if match := re.fullmatch(r"(.+)/vars/(\d+)", path):
            numbered[match[1]][int(match[2])] = dataset
    layers: dict[str, dict[str, Any]] = {}
    for path, by_number in numbered.items():
        datasets = [by_number[number] for number in sorted(by_number)]
        known = VARIABLES.get(tuple(len(dataset.shape) for dataset in datasets))
        if known is not None:
            layers[path] = dict(zip(known, datasets))
    names = _config_names(config) if config else {}
    if not names.keys() >= layers.keys():
        names = {
            path: next(iter(variables.values())).parent.attrs.get("name")
            for path, variables in layers.items()
        }
    if None in names.values():
        names = _published_names(layers)
    for path, variables in layers.items():
        for variable, dataset in variables.items():
            yield names[path], variable, _array(dataset)


def _config_names(config: Any, prefix: str = "") -> dict[str, str]:
    """Paths of a model's layers in its file, counted by their classes, and the layers' names."""
    counts: Counter[str] = Counter()
    names = {}
    for layer in config["config"].get("layers", ()):
        kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", layer["class_name"]).lower()
        path = f"{prefix}layers/{_numbered(kind, counts)}"
        names[path] = layer["config"]["name"]
        names |= _config_names(layer, f"{path}/")
    return names


def _published_names(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """As `_config_names`, for the network of Keras that has just these layers and shapes."""
    classes = layers["layers/dense"]["bias"].shape[0] if "layers/dense" in layers else 0
    for _, interchange in interchanges():
        library = interchange.library("keras")
        if library is None:
            continue
        for config in library.models.values():
            model = model_of(config, num_classes=classes)
            counts: Counter[str] = Counter()
            names = {
                f"layers/{_numbered(LAYERS[layer.kind], counts)}": library.layer_name(layer)
                for layer in interchange.layers(model)
            }
            if names.keys() != layers.keys():
                continue
            shapes = variable_shapes(model)
            wanted = {
                name: library.to_theirs(entry.kind, np.empty(shapes[entry.path])).shape
                for name, entry in library.entries(interchange.layers(model)).items()
            }
            given = {
                f"{names[path]}/{variable}": dataset.shape
                for path, variables in layers.items()
                for variable, dataset in variables.items()
            }
            if wanted == given:
                return names
    raise WeightsError(
        "it does not say which layers its arrays belong to; save the whole model as .keras"
    )


def _numbered(name: str, counts: Counter[str]) -> str:
    """`conv2d`, then `conv2d_1` and so on."""
    number = counts[name]
    counts[name] += 1
    return f"{name}_{number}" if number else name
