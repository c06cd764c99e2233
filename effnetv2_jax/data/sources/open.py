"""Opens the source that a `DataConfig` names."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.system.paths import local_path, scheme_of

Purpose = Literal["train", "eval"]

_EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded"


def open_source(
    data: DataConfig, purpose: Purpose, *, class_names: Sequence[str] | None = None
) -> Source:
    """Opens the training or the evaluation examples.

    Args:
      class_names: of sources that are listed: the classes in the order in which they are known
        already, such as a run's; the source may lack some. None takes the order of the source.

    Raises:
      DataError: there is no such data set or split, it cannot be read, or it does not have the
        `num_classes` or `num_train_examples` that the config states; or a class is not among
        `class_names`.
    """
    data = _local(data)
    split = _split_name(data, purpose)
    if data.source in LISTED:
        return _checked(list_source(data)(split, class_names), data, purpose)
    return _checked(_OPENERS[data.source](data, split), data, purpose)


def open_sources(
    data: DataConfig, *, began_with: Sequence[str] | None = None
) -> tuple[Source, Source]:
    """Opens the training and the evaluation examples; what is listed is listed once.

    Args:
      began_with: of sources that are listed: the classes of a run that continues, whose order stays
        if they are the same.

    Raises:
      DataError: as `open_source`.
    """
    if data.source not in LISTED:
        return open_source(data, "train"), open_source(data, "eval")
    from effnetv2_jax.data.sources.picture_folder import normal

    data = _local(data)
    take = list_source(data)
    train = take(data.train_split, None)
    if began_with is not None and sorted(map(normal, began_with)) == sorted(train.class_names):
        train = take(data.train_split, began_with)
    evaluation = take(data.eval_split, train.class_names)
    return _checked(train, data, "train"), _checked(evaluation, data, "eval")


def _local(data: DataConfig) -> DataConfig:
    """With a path that a source of files can read; others read more."""
    path = local_path(data.path)
    if data.source in LISTED and (scheme := scheme_of(path)):
        raise DataError(
            f"data.path is {path}, but data.source={data.source} does not read {scheme}://; copy "
            "it to a local disk, or mount it"
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
    if data.source in LISTED and purpose == "train" and classes < 2 and data.max_labels == 1:
        # Of its training split a folder says more; this one is another, or `all`.
        raise DataError(
            f"{source.name} has the single class {source.class_names[0]!r}; a classifier needs two "
            "or more"
        )
    return source


# Each opener imports its source itself: TFDS takes seconds that a folder of pictures need not.


def _open_embedded(data: DataConfig, split: str) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource("trashnet", split, data_dir=str(_EMBEDDED))


def _open_tfds(data: DataConfig, split: str) -> Source:
    from effnetv2_jax.data.sources.tfds import TfdsSource

    return TfdsSource(data.name, split, data_dir=data.path)


def _open_tfrecord(data: DataConfig, split: str) -> Source:
    from effnetv2_jax.data.sources.tfrecord import TfrecordSource

    if data.num_classes is None:
        raise DataError("data.num_classes must be stated: TFRecord files do not contain it")
    return TfrecordSource(
        data.path,
        split,
        num_classes=data.num_classes,
        first_label=data.first_label,
        max_labels=data.max_labels,
        files=data.files,
        picture_key=data.picture_key,
        label_key=data.label_key,
    )


_OPENERS: dict[str, Callable[[DataConfig, str], Source]] = {
    "embedded": _open_embedded,
    "tfds": _open_tfds,
    "tfrecord": _open_tfrecord,
}

Take = Callable[[str, Sequence[str] | None], Source]
"""From a split, and the classes in an order that is known already, to its examples."""


def _list_folder(data: DataConfig) -> Take:
    from effnetv2_jax.data.sources.folder import FolderSource
    from effnetv2_jax.data.sources.picture_folder import PictureFolder
    from effnetv2_jax.data.sources.split_names import role_of
    from effnetv2_jax.data.sources.splits import parse_split

    folder, share = PictureFolder(data.path, layout=data.layout), data.validation_share
    listed = folder.lists()
    if data.labels:
        listed = dict.fromkeys(("val", "test"), folder.root / data.labels)

    def take(split: str, names: Sequence[str] | None) -> Source:
        role = role_of(parse_split(split).name)
        if role in listed:
            known = names or take("train", None).class_names
            return _open_list(data, listed[role], split, known)
        return FolderSource(folder, split, validation_share=share, class_names=names)

    return take


def _open_list(
    data: DataConfig, path: pathlib.Path, split: str, class_names: Sequence[str]
) -> Source:
    """Pictures outside of class folders, with the list of their labels."""
    from effnetv2_jax.data.sources.picture_table import PictureTable
    from effnetv2_jax.data.sources.table import TableSource

    if not path.is_file():
        raise DataError(f"data.labels: there is no file {str(path)!r}")
    data = dataclasses.replace(data, source="csv", path=str(path))
    _, bracket, part = split.partition("[")
    return TableSource(PictureTable(data), f"all{bracket}{part}", data, class_names)


def _list_csv(data: DataConfig) -> Take:
    from effnetv2_jax.data.sources.picture_table import PictureTable
    from effnetv2_jax.data.sources.table import TableSource

    table = PictureTable(data)
    return lambda split, names: TableSource(table, split, data, names)


def _list_arrow(data: DataConfig) -> Take:
    from effnetv2_jax.data.sources.arrow_set import ArrowSet

    return ArrowSet(data).source


def _list_tar(data: DataConfig) -> Take:
    from effnetv2_jax.data.sources.webdataset import TarFiles

    return TarFiles(data).source


_LISTERS: dict[str, Callable[[DataConfig], Take]] = {
    "folder": _list_folder,
    "csv": _list_csv,
    "huggingface": _list_arrow,
    "webdataset": _list_tar,
}
LISTED = tuple(_LISTERS)
"""Sources whose examples are listed, with their classes, before the first is read."""


def list_source(data: DataConfig) -> Take:
    """Lists a source of `LISTED` once, for all of its splits.

    Raises:
      DataError: as `open_source`; and what it returns, too.
    """
    return _LISTERS[data.source](data)


def _split_name(data: DataConfig, purpose: Purpose) -> str:
    return data.train_split if purpose == "train" else data.eval_split
