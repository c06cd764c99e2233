"""Opens the source that a `DataConfig` names."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Literal

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.system.paths import local_path, scheme_of

Purpose = Literal["train", "eval"]

_EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded"


def open_source(data: DataConfig, purpose: Purpose) -> Source:
    """Opens the training or the evaluation examples.

    Raises:
      DataError: there is no such data set or split, it cannot be read, or it does not have the
        `num_classes` or `num_train_examples` that the config states.
    """
    path = local_path(data.path)
    if data.source in ("folder", "tfrecord") and (scheme := scheme_of(path)):
        raise DataError(
            f"data.path is {path}, but data.source={data.source} does not read {scheme}://; copy "
            "it to a local disk, or mount it"
        )
    source = _OPENERS[data.source](dataclasses.replace(data, path=path), purpose)
    classes = len(source.class_names)
    if data.num_classes not in (None, classes):
        raise DataError(
            f"{source.name} has {classes} classes, but data.num_classes is {data.num_classes}"
        )
    if purpose == "train" and data.num_train_examples not in (None, len(source)):
        raise DataError(
            f"{source.name} has {len(source)} examples, but data.num_train_examples is "
            f"{data.num_train_examples}; set it to the former, or to None, if that is what you have"
        )
    return source


def examples_and_classes(data: DataConfig) -> tuple[int, int]:
    """The number of training examples and of classes; opens the data if the config lacks one.

    Raises:
      DataError: as `open_source`.
    """
    if data.num_train_examples is not None and data.num_classes is not None:
        return data.num_train_examples, data.num_classes
    source = open_source(data, "train")
    return len(source), len(source.class_names)


# Each opener imports its source itself: TFDS takes seconds that a folder of pictures need not.


def _open_embedded(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource("trashnet", _split_name(data, purpose), data_dir=str(_EMBEDDED))


def _open_tfds(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource(data.name, _split_name(data, purpose), data_dir=data.path)


def _open_folder(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.folder import FolderSource

    return FolderSource(
        data.path, _split_name(data, purpose), validation_share=data.validation_share
    )


def _open_tfrecord(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.tfrecord import TfrecordSource

    if data.num_classes is None:
        raise DataError("data.num_classes must be stated: TFRecord files do not contain it")
    return TfrecordSource(
        data.path,
        _split_name(data, purpose),
        num_classes=data.num_classes,
        first_label=data.first_label,
    )


def _split_name(data: DataConfig, purpose: Purpose) -> str:
    return data.train_split if purpose == "train" else data.eval_split


_OPENERS: dict[str, Callable[[DataConfig, Purpose], Source]] = {
    "embedded": _open_embedded,
    "tfds": _open_tfds,
    "tfrecord": _open_tfrecord,
    "folder": _open_folder,
}
