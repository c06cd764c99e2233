"""Finds weights: by tag, on the Hub, in a run, in files of other libraries."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effnetv2_jax.models.variants import get_variant
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights import hub
from effnetv2_jax.weights.card import read_card
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.files import Arrays, read_safetensors, read_torch
from effnetv2_jax.weights.found import Found, recognize
from effnetv2_jax.weights.names import imagenet
from effnetv2_jax.weights.published import Published, is_tag, numerics, of_repository, published
from effnetv2_jax.weights.tf1_checkpoint import read_tf1_checkpoint


def _read_keras(source: Any) -> Arrays:
    # Imported here: only Keras's files need h5py.
    from effnetv2_jax.weights.keras_files import read_keras

    return read_keras(source)


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".safetensors": read_safetensors,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".keras": _read_keras,
    ".h5": _read_keras,
    ".index": read_tf1_checkpoint,
}


def find_weights(weights: Any, *, name: str | None = None) -> Found:
    """Finds weights and tells whose they are, without fitting them to a model.

    Args:
      weights: as for `load_pretrained`.
      name: the model's; None if the weights say so themselves.

    Raises:
      ValueError: there is no such model.
      WeightsError: there are none, they cannot be read, or are not `name`'s.
    """
    if name is not None:
        get_variant(name)
    if isinstance(weights, Mapping):
        arrays = {str(key): _array(value) for key, value in weights.items()}
        return recognize("the state dict", arrays).named(name)
    if not isinstance(weights, str | os.PathLike):
        return recognize("the Keras model", _read_keras(weights)).named(name)
    return _of_text(os.fspath(weights), name).named(name)


def find_preprocessing(weights: str, *, name: str) -> Preprocessing | None:
    """What weights expect of pictures, as far as known; published ones are not read for it.

    Raises:
      WeightsError: as `find_weights`.
    """
    if is_tag(weights):
        return published(name, weights).preprocessing
    return find_weights(weights, name=name).preprocessing


def _of_text(text: str, name: str | None) -> Found:
    if is_tag(text):
        if name is None:
            raise WeightsError(f"{text!r} is a tag of several models; name the model as well")
        known = published(name, text)
        return _on_hub(hub.Address(known.repository), name, known)
    kind, _, rest = text.partition(":")
    match kind:
        case "hub":
            address = hub.Address.parse(rest)
            found = of_repository(address.repository)
            return _on_hub(address, *found) if found else _on_hub(address)
        case "workdir":
            return _of_run(rest)
        case "file":
            return _of_path(Path(rest).expanduser())
    # A bucket can hold a run only.
    return _of_run(text) if "://" in text else _of_path(Path(text).expanduser())


def _on_hub(address: hub.Address, name: str | None = None, known: Published | None = None) -> Found:
    title = str(address)
    if known is None:
        card = read_card(hub.download(address, hub.CONFIG), title)
        arrays = read_safetensors(hub.download(address, hub.WEIGHTS))
        return recognize(title, arrays, **_said(card))
    return recognize(
        title,
        read_safetensors(hub.download(address, hub.WEIGHTS)),
        name=name,
        fields=numerics(known.repository, library="timm"),
        preprocessing=known.preprocessing,
        class_names=imagenet(known.classes),
    )


def _of_path(path: Path) -> Found:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and path.with_name(f"{path.name}.index").exists():
        return recognize(str(path), read_tf1_checkpoint(path))
    if not path.exists():
        raise WeightsError(
            f"there are no weights {str(path)!r}: it is neither a file or folder nor a tag "
            "(in1k, in21k, in21k-ft1k); weights on the Hub are written hub:OWNER/REPO"
        )
    if path.suffix not in _READERS:
        raise WeightsError(f"{path} has none of the known endings {', '.join(_READERS)}")
    return recognize(str(path), _READERS[path.suffix](path))


def _of_folder(folder: Path) -> Found:
    if (folder / "checkpoints").is_dir():
        return _of_run(str(folder))
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        return _of_run(str(folder.parent.parent), step=int(folder.name))
    for name in (hub.WEIGHTS, "pytorch_model.bin", "model.keras"):
        file, config = folder / name, folder / hub.CONFIG
        if file.exists():
            said = _said(read_card(config, str(folder))) if config.exists() else {}
            return recognize(str(folder), _READERS[file.suffix](file), **said)
    if any(folder.glob("*.index")):
        return recognize(str(folder), read_tf1_checkpoint(folder))
    raise WeightsError(
        f"{folder} has no weights: a run has checkpoints/, a copy from the Hub {hub.WEIGHTS}, a "
        "TensorFlow checkpoint a file that ends in .index"
    )


def _of_run(workdir: str, step: int | None = None) -> Found:
    # Imported here: Orbax takes a second, and only runs need it.
    from effnetv2_jax.weights.runs import find_run

    return find_run(workdir, step=step)


def _said(card: Any) -> dict[str, Any]:
    return card._asdict() | {"name": card.name or None}


def _array(value: Any) -> np.ndarray:
    # PyTorch's tensors give no array while they want gradients.
    return np.asarray(value.detach() if hasattr(value, "detach") else value)
