"""Which examples have which labels, also where a source has to be read to know it."""

import logging
import pathlib
import tempfile
from multiprocessing.pool import ThreadPool

import numpy as np
from tqdm import tqdm

from effnetv2_jax.data.record import DataError, DecodeError, Labelled, Source
from effnetv2_jax.data.sources.labelled import LabelIndex
from effnetv2_jax.system.cache import cache_directory

_THREADS = 16

_log = logging.getLogger(__name__)


def label_index(source: Source) -> LabelIndex:
    """The examples of every class.

    A source that does not know them without reading its examples is read once, as a whole; the
    labels are then kept in `labels` in the package's cache directory. Examples that cannot be read
    have none.

    Raises:
      DataError: a label is out of range.
    """
    classes = len(source.class_names)
    if isinstance(source, Labelled):
        return LabelIndex([source.labels_of(index) for index in range(len(source))], classes)
    path = cache_directory() / "labels" / f"{source.fingerprint}.npz"
    labels = _load(path, len(source))
    if labels is None:
        labels = _read(source)
        _save(path, labels)
    for index, its in enumerate(labels):
        if not all(0 <= label < classes for label in its):
            raise DataError(f"{source.name} example {index} has label {max(its)} of {classes}")
    return LabelIndex(labels, classes)


def _read(source: Source) -> list[tuple[int, ...]]:
    def labels(index: int) -> tuple[int, ...]:
        try:
            return source[index].labels
        except (DecodeError, OSError):
            return ()

    with ThreadPool(_THREADS) as pool:
        found = pool.imap(labels, range(len(source)), chunksize=64)
        title = f"reading the labels of {source.name}"
        return list(tqdm(found, title, len(source), unit="examples", delay=2, disable=None))


def _load(path: pathlib.Path, count: int) -> list[tuple[int, ...]] | None:
    try:
        with open(path, "rb") as stream, np.load(stream) as saved:
            pieces = np.split(saved["labels"], saved["ends"][:-1])
    except FileNotFoundError:
        return None
    except Exception as error:
        # A damaged archive fails in as many ways as zipfile and NumPy have parts.
        _log.warning("%s is damaged (%s); reading the labels anew", path, error)
        return None
    return [tuple(piece.tolist()) for piece in pieces] if len(pieces) == count else None


def _save(path: pathlib.Path, labels: list[tuple[int, ...]]) -> None:
    """Puts the labels into the cache as a whole, so that no other process reads half of them."""
    flat = np.array([label for its in labels for label in its], np.int64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            new = pathlib.Path(folder) / path.name
            np.savez(new, labels=flat, ends=np.cumsum([len(its) for its in labels]))
            new.replace(path)
    except OSError as error:
        _log.warning("the labels cannot be kept, so every run has to read them: %s", error)
