"""Finds weights: by tag, on the Hub, in a run, in files of other libraries."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from effnetv2_jax.models.efficientnet.published import (
    TENSORFLOW,
    Published,
    is_tag,
    of_repository,
    published,
)
from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.weights import hub
from effnetv2_jax.weights.arrays import Arrays, read_safetensors, read_torch, to_numpy
from effnetv2_jax.weights.card import Card, read_card
from effnetv2_jax.weights.class_names import imagenet
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.found import Found
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
    """Finds weights, and what came with them; their arrays are read when they are asked for.

    Args:
      weights: as for `load_pretrained`.
      name: the model's; None if the weights say so themselves.

    Raises:
      ValueError: there is no such model.
      WeightsError: there are no such weights, or they are another model's.
    """
    if name is not None:
        get_variant(name)
    return _find(weights, name).named(name)


def _find(weights: Any, name: str | None) -> Found:
    if isinstance(weights, Mapping):
        return Found(
            title="the state dict",
            read=lambda: {str(key): to_numpy(value) for key, value in weights.items()},
        )
    if not isinstance(weights, str | os.PathLike):
        return Found(title="the Keras model", read=partial(_read_keras, weights))
    text = os.fspath(weights)
    if is_tag(text):
        if name is None:
            raise WeightsError(f"{text!r} is a tag of several models; name the model as well")
        known = published(name, text)
        return _published(hub.Address(known.repository), name, known)
    kind, _, rest = text.partition(":")
    match kind:
        case "hub":
            address = hub.Address.parse(rest)
            found = of_repository(address.repository)
            return _published(address, *found) if found else _on_hub(address)
        case "file":
            return _of_path(Path(rest).expanduser())
        case "workdir":
            return _of_run(rest)
        case "http" | "https":
            raise WeightsError(
                f"{text} is a page; weights on the Hub are written hub:OWNER/REPO, and others have "
                "to be downloaded first"
            )
    # A bucket can hold a run only.
    return _of_run(text) if "://" in text else _of_path(Path(text).expanduser())


def _published(address: hub.Address, name: str, known: Published) -> Found:
    return Found(
        title=str(address),
        read=partial(_read_from_hub, address, hub.WEIGHTS),
        name=name,
        stated_fields=TENSORFLOW,
        stated_preprocessing=known.preprocessing,
        class_names=imagenet(known.classes),
    )


def _on_hub(address: hub.Address) -> Found:
    card = read_card(hub.download(address, hub.CONFIG), str(address))
    file = hub.KERAS_WEIGHTS if card.library == "keras" else hub.WEIGHTS
    return _described(str(address), card, partial(_read_from_hub, address, file))


def _read_from_hub(address: hub.Address, file: str) -> Arrays:
    return _READERS[Path(file).suffix](hub.download(address, file))


def _of_path(path: Path) -> Found:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and path.with_name(f"{path.name}.index").exists():
        return Found(title=str(path), read=partial(read_tf1_checkpoint, path))
    if not path.exists():
        raise WeightsError(
            f"there are no weights {str(path)!r}: it is neither a file or folder nor a tag "
            "(in1k, in21k, in21k-ft1k); weights on the Hub are written hub:OWNER/REPO"
        )
    if path.suffix not in _READERS:
        raise WeightsError(f"{path} has none of the known endings {', '.join(_READERS)}")
    return Found(title=str(path), read=partial(_READERS[path.suffix], path))


def _of_folder(folder: Path) -> Found:
    if (folder / "checkpoints").is_dir():
        return _of_run(str(folder))
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        return _of_run(str(folder.parent.parent), step=int(folder.name))
    if any(folder.glob("*.index")):
        return Found(title=str(folder), read=partial(read_tf1_checkpoint, folder))
    config = folder / hub.CONFIG
    card = read_card(config, str(folder)) if config.exists() else Card()
    keras = card.library == "keras"
    for name in (hub.KERAS_WEIGHTS,) if keras else (hub.WEIGHTS, "pytorch_model.bin"):
        file = folder / name
        if file.exists():
            return _described(str(folder), card, partial(_READERS[file.suffix], file))
    raise WeightsError(
        f"{folder} has no weights: a run has checkpoints/, a copy from the Hub {hub.WEIGHTS}, a "
        "TensorFlow checkpoint a file that ends in .index"
    )


def _of_run(workdir: str, step: int | None = None) -> Found:
    # Imported here: Orbax takes a second, and only runs need it.
    from effnetv2_jax.weights.runs import find_run

    return find_run(workdir, step=step)


def _described(title: str, card: Card, read: Callable[[], Arrays]) -> Found:
    return Found(
        title=title,
        read=read,
        name=card.name,
        stated_fields=card.fields,
        stated_preprocessing=card.preprocessing,
        class_names=card.class_names,
    )
