"""Lists of labels that well-known sets come with, which no header explains."""

import fnmatch
import pathlib
from typing import Any, NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError


class KnownList(NamedTuple):
    """How a list is read."""

    title: str
    fields: dict[str, Any]
    """Of a `DataConfig`, where that states nothing else."""
    first_word: bool = False
    """Whether the first word of a cell is its label."""


_KNOWN = {
    "val_annotations.txt": KnownList(
        "Tiny ImageNet's list: picture, class and box, for the pictures in images/",
        {
            "delimiter": "\t",
            "header": "no",
            "picture_key": "1",
            "label_key": "2",
            "pictures": "images",
        },
    ),
    "loc_*_solution.csv": KnownList(
        "Kaggle's list of ImageNet: the first word of PredictionString is the class",
        {"delimiter": ",", "header": "yes", "picture_key": "ImageId"}
        | {"label_key": "PredictionString"},
        first_word=True,
    ),
}
_UNUSABLE = "ILSVRC2012_validation_ground_truth.txt"


def list_in(folder: pathlib.Path) -> pathlib.Path | None:
    """The list that a folder of pictures without class folders brings; None without one."""
    found = folder / "val_annotations.txt"
    return found if found.is_file() else None


def known_list(path: pathlib.Path, data: DataConfig) -> KnownList | None:
    """How a file of this name is read; None for one that explains itself.

    Raises:
      DataError: its labels are in an order of their own.
    """
    if path.name.lower() == _UNUSABLE.lower():
        raise DataError(
            f"{path} numbers ImageNet's classes as the development kit does, which is not the "
            "order of their names that weights have. Use a list that names them, such as "
            "imagenet_2012_validation_synset_labels.txt or LOC_val_solution.csv, or val.txt of "
            "Caffe"
        )
    for pattern, known in _KNOWN.items():
        if fnmatch.fnmatchcase(path.name.lower(), pattern):
            empty = DataConfig()
            fields = {
                name: value
                for name, value in known.fields.items()
                if getattr(data, name) == getattr(empty, name)
            }
            return known._replace(fields=fields)
    return None
