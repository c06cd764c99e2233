"""Finds weights: by tag, on the Hub, in a run, in files of other libraries."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from effnetv2_jax.models.variants import get_variant
from effnetv2_jax.outputs.workdir import read_preprocessing
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights import hub
from effnetv2_jax.weights.card import Card, read_card
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.files import Arrays, read_safetensors, read_torch, to_numpy
from effnetv2_jax.weights.found import Found, recognize
from effnetv2_jax.weights.names import imagenet
from effnetv2_jax.weights.published import TENSORFLOW, Published, is_tag, of_repository, published
from effnetv2_jax.weights.tf1_checkpoint import read_tf1_checkpoint


def _read_keras(source: Any) -> Arrays:
    # Imported here: only Keras's files need h5py.
    from effnetv2_jax.weights.keras_files import read_keras

    return read_keras(source)


HUB_FILES = (hub.WEIGHTS, "pytorch_model.bin")
KERAS_FILES = ("model.keras",)
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
        arrays = {str(key): to_numpy(value) for key, value in weights.items()}
        return recognize("the state dict", arrays).named(name)
    if not isinstance(weights, str | os.PathLike):
        return recognize("the Keras model", _read_keras(weights)).named(name)
    return _of_text(os.fspath(weights), name).named(name)


def find_preprocessing(weights: str, *, name: str) -> Preprocessing | None:
    """What weights expect of pictures, if something beside the weights says so.

    Raises:
      WeightsError: there are no such weights; they are not read.
    """
    kind, _, rest = weights.partition(":")
    if is_tag(weights):
        return published(name, weights).preprocessing
    if kind == "hub":
        address = hub.Address.parse(rest)
        known = of_repository(address.repository)
        if known:
            return known[1].preprocessing
        return read_card(hub.download(address, hub.CONFIG), str(address)).preprocessing
    folder = epath.Path(rest if kind in ("workdir", "file") else weights).expanduser()
    if not folder.exists():
        raise _nowhere(weights)
    if (folder / hub.CONFIG).exists() and (folder / "checkpoints").exists():
        return read_preprocessing(folder)
    if (folder / hub.CONFIG).exists():
        return read_card(Path(folder / hub.CONFIG), str(folder)).preprocessing
    return None


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
    if kind in ("http", "https"):
        raise WeightsError(
            f"{text} is a page; weights on the Hub are written hub:OWNER/REPO, and others have to "
            "be downloaded first"
        )
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
        fields=TENSORFLOW,
        preprocessing=known.preprocessing,
        class_names=imagenet(known.classes),
    )


def _of_path(path: Path) -> Found:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and path.with_name(f"{path.name}.index").exists():
        return recognize(str(path), read_tf1_checkpoint(path))
    if not path.exists():
        raise _nowhere(str(path))
    if path.suffix not in _READERS:
        raise WeightsError(f"{path} has none of the known endings {', '.join(_READERS)}")
    return recognize(str(path), _READERS[path.suffix](path))


def _nowhere(text: str) -> WeightsError:
    return WeightsError(
        f"there are no weights {text!r}: it is neither a file or folder nor a tag (in1k, in21k, "
        "in21k-ft1k); weights on the Hub are written hub:OWNER/REPO"
    )


def _of_folder(folder: Path) -> Found:
    if (folder / "checkpoints").is_dir():
        return _of_run(str(folder))
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        return _of_run(str(folder.parent.parent), step=int(folder.name))
    config = folder / hub.CONFIG
    card = read_card(config, str(folder)) if config.exists() else Card(None, {}, None, None)
    for name in KERAS_FILES if card.library == "keras" else HUB_FILES:
        file = folder / name
        if file.exists():
            return recognize(str(folder), _READERS[file.suffix](file), **_said(card))
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


def _said(card: Card) -> dict[str, Any]:
    return {name: value for name, value in card._asdict().items() if name != "library"}
