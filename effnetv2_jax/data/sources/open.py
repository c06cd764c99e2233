"""Opens the source that a `DataConfig` names."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.system.paths import local_path, scheme_of

if TYPE_CHECKING:
    from effnetv2_jax.data.sources.folder import FolderSource
    from effnetv2_jax.data.sources.picture_folder import PictureFolder

Purpose = Literal["train", "eval"]

_EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded"


def open_source(
    data: DataConfig, purpose: Purpose, *, class_names: Sequence[str] | None = None
) -> Source:
    """Opens the training or the evaluation examples.

    Args:
      class_names: `folder`: the classes in the order in which they are known already, such as a
        run's; the folder may lack some. None takes the order of the folder.

    Raises:
      DataError: there is no such data set or split, it cannot be read, or it does not have the
        `num_classes` or `num_train_examples` that the config states; or a class is not among
        `class_names`.
    """
    data = _local(data)
    if data.source == "folder":
        folder = _list_folder(data)
        return _checked(_open_folder(data, folder, purpose, class_names), data, purpose)
    return _checked(_OPENERS[data.source](data, purpose), data, purpose)


def open_sources(
    data: DataConfig, *, began_with: Sequence[str] | None = None
) -> tuple[Source, Source]:
    """Opens the training and the evaluation examples; a folder is listed once.

    Args:
      began_with: `folder`: the classes of a run that continues, whose order stays if they are the
        same.

    Raises:
      DataError: as `open_source`.
    """
    if data.source != "folder":
        return open_source(data, "train"), open_source(data, "eval")
    from effnetv2_jax.data.sources.picture_folder import normal

    data = _local(data)
    folder = _list_folder(data)
    train = _open_folder(data, folder, "train")
    if began_with is not None and sorted(map(normal, began_with)) == sorted(train.class_names):
        train = _open_folder(data, folder, "train", began_with)
    evaluation = _open_folder(data, folder, "eval", train.class_names)
    return _checked(train, data, "train"), _checked(evaluation, data, "eval")


def _local(data: DataConfig) -> DataConfig:
    """With a path that a `folder` can read; others read more."""
    path = local_path(data.path)
    if data.source == "folder" and (scheme := scheme_of(path)):
        raise DataError(
            f"data.path is {path}, but data.source=folder does not read {scheme}://; copy it to a "
            "local disk, or mount it"
        )
    return dataclasses.replace(data, path=path)


def _checked(source: Source, data: DataConfig, purpose: Purpose) -> Source:
    """Raises a DataError for a source that is not as the config says."""
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
    if data.source == "folder" and purpose == "train" and classes < 2:
        # Of its training split the folder says more; this one is another, or `all`.
        raise DataError(
            f"{source.name} has the single class {source.class_names[0]!r}; a classifier needs two "
            "or more"
        )
    return source


# Each opener imports its source itself: TFDS takes seconds that a folder of pictures need not.


def _open_embedded(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource("trashnet", _split_name(data, purpose), data_dir=str(_EMBEDDED))


def _open_tfds(data: DataConfig, purpose: Purpose) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource(data.name, _split_name(data, purpose), data_dir=data.path)


def _list_folder(data: DataConfig) -> "PictureFolder":
    from effnetv2_jax.data.sources.picture_folder import PictureFolder

    return PictureFolder(data.path, layout=data.layout)


def _open_folder(
    data: DataConfig,
    folder: "PictureFolder",
    purpose: Purpose,
    class_names: Sequence[str] | None = None,
) -> "FolderSource":
    from effnetv2_jax.data.sources.folder import FolderSource

    return FolderSource(
        folder,
        _split_name(data, purpose),
        validation_share=data.validation_share,
        class_names=class_names,
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
        max_labels=data.max_labels,
    )


def _split_name(data: DataConfig, purpose: Purpose) -> str:
    return data.train_split if purpose == "train" else data.eval_split


_OPENERS: dict[str, Callable[[DataConfig, Purpose], Source]] = {
    "embedded": _open_embedded,
    "tfds": _open_tfds,
    "tfrecord": _open_tfrecord,
}
