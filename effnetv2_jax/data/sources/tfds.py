"""TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow and without network."""

import difflib
import hashlib
import os
import re
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.message import DecodeError as MessageError

# The whole-example parser of TFDS takes 20 times as long (65 against 3 microseconds), and holds
# the interpreter's lock meanwhile.
from tensorflow_datasets.proto import tf_example_pb2

from effnetv2_jax.data.record import DataError, DecodeError, Record

_NAME = re.compile(r"(?P<name>[\w-]+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_WORD = re.compile(r"[A-Za-z_][\w-]*")


class TfdsSource:
    """One split of an image classification set; reads encoded pictures, decodes none.

    ArrayRecord's reader compares checksums and maps no file into memory, so that files may be
    damaged, shortened or removed at any time: the examples that are lost cannot be read, and others
    are not affected.
    """

    exif = False  # as TensorFlow's decoder, with which published results were made

    def __init__(self, name: str, split: str, *, data_dir: str = "") -> None:
        """Opens a prepared set; it need not be one of TFDS's own.

        Args:
          name: `name`, `name/config`, `name:version` or `name/config:version`; without a version,
            the newest that is prepared.
          split: in TFDS's notation, such as `train` or `train[25023:]`.
          data_dir: where sets are prepared; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.

        Raises:
          DataError: no such set or split, not prepared as ArrayRecord, or without one image
            and one class label, or list of labels; or some of its files are missing.
        """
        root = epath.Path(
            data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        ).expanduser()
        prepared = _find(root, name)
        try:
            builder = tfds.builder_from_directory(prepared.path)
        except Exception as error:
            # Reading a foreign or damaged directory fails in as many ways as TFDS has parts.
            raise DataError(f"{prepared.path} cannot be read as a TFDS set: {error}") from error
        info = builder.info
        formats = {file_format.value for file_format in info.available_file_formats()}
        if "array_record" not in formats:
            raise DataError(
                f"{name} in {root} is prepared as {', '.join(sorted(formats))}, which has no "
                f"random access{_as_tfrecord(prepared.path, formats)}. Or prepare it again, in "
                f"another directory: {_how_to(name)}"
            )
        self._image, self._label = _features(name, info)
        self._has_file_name = "file_name" in info.features and isinstance(
            info.features["file_name"], tfds.features.Text
        )
        self._examples = _open_split(builder, name, split)
        self.available = sum(
            info.splits[part].num_examples for part in {*_WORD.findall(split)} & {*info.splits}
        )
        """Examples of the whole split, of which this may be a slice."""
        self.name = f"{info.full_name} {split}"
        self.class_names: tuple[str, ...] = tuple(_classes(info.features[self._label]).names)
        self.fingerprint = hashlib.sha256(
            repr((self.name, len(self), info.splits.total_num_examples, self.class_names)).encode()
        ).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        try:
            example = self._examples[index]
        except Exception as error:
            # The reader raises RuntimeError for nearly everything, and IndexError.
            raise DecodeError(f"it cannot be read: {error}") from error
        if not example:
            raise DecodeError("it is empty, as where its file has become shorter")
        try:
            fields = tf_example_pb2.Example.FromString(example).features.feature
        except MessageError as error:
            raise DecodeError(f"it is no tf.train.Example ({error})") from error
        key = f"{self.name} example {index}"
        if self._has_file_name:
            for name in fields["file_name"].bytes_list.value:
                key += f" ({name.decode(errors='replace')})"
        pictures = fields[self._image].bytes_list.value
        if len(pictures) != 1:
            raise DecodeError(f"it has {len(pictures)} pictures")
        labels = tuple(dict.fromkeys(fields[self._label].int64_list.value))
        return Record(key, pictures[0], labels)


class _Prepared(NamedTuple):
    """A directory that holds one version of a set."""

    config: str
    version: tuple[int, ...]
    path: epath.Path


def _find(root: epath.Path, name: str) -> _Prepared:
    match = _NAME.fullmatch(name)
    if not match:
        raise DataError(
            f"data.name {name!r} is no TFDS name; it looks like 'cifar10', 'cifar10:3.0.2' or "
            "'imagenet_resized/64x64'"
        )
    found = _prepared(root / match["name"])
    if not found:
        raise DataError(f"no data set {name!r} in {root}; {_others(root, match['name'])}")
    chosen = found
    if match["config"]:
        chosen = [each for each in chosen if each.config == match["config"]]
    if match["version"]:
        version = tuple(map(int, match["version"].split(".")))
        chosen = [each for each in chosen if each.version == version]
    if not chosen or len({each.config for each in chosen}) > 1:
        raise DataError(
            f"{name!r} names {'more than one set' if chosen else 'no set'} in {root}; there are "
            + ", ".join(
                f"{'/'.join(filter(None, (match['name'], each.config)))}"
                f":{'.'.join(map(str, each.version))}"
                for each in found
            )
        )
    return max(chosen, key=lambda each: each.version)


def _prepared(folder: epath.Path) -> list[_Prepared]:
    """What lies in `<set>/<version>` and `<set>/<config>/<version>`, sorted."""
    if not folder.is_dir():
        return []
    found = []
    for child in folder.iterdir():
        for path in [child, *(child.iterdir() if child.is_dir() else [])]:
            if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").exists():
                config = "" if path == child else child.name
                found.append(_Prepared(config, tuple(map(int, path.name.split("."))), path))
    return sorted(found)


def _others(root: epath.Path, name: str) -> str:
    """What to do where a set is missing."""
    there = sorted(child.name for child in root.iterdir()) if root.is_dir() else []
    there = [each for each in there if _prepared(root / each)]
    if close := difflib.get_close_matches(name, there, n=1):
        return f"did you mean {close[0]!r}?"
    listed = f"it holds {', '.join(there)}" if there else "it holds no prepared set"
    return (
        f"{listed}. Set data.path or $TFDS_DATA_DIR to the directory that has it, or prepare it "
        f"there: {_how_to(name)}"
    )


def _as_tfrecord(path: epath.Path, formats: set[str]) -> str:
    """How the files of a set can be read as they are, or converted."""
    if "tfrecord" not in formats:
        return ""
    return (
        f". data.source=tfrecord reads its files where they lie (data.path={path}, with "
        "data.num_classes), and python -m effnetv2_jax.data.prepare --format=tfrecord "
        f"--from={path} makes it an ArrayRecord set"
    )


def _how_to(name: str) -> str:
    return (
        f"tfds.builder({name!r}, data_dir=..., file_format='array_record').download_and_prepare() "
        "(some sets need TensorFlow for this, none for reading)"
    )


def _features(name: str, info: Any) -> tuple[str, str]:
    """The names of the picture and of its label."""
    features = info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    labels = [
        key for key in features if isinstance(_classes(features[key]), tfds.features.ClassLabel)
    ]
    supervised = info.supervised_keys
    if supervised and supervised[0] in images and supervised[1] in labels:
        return supervised[0], supervised[1]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"{name} must have one image and one class label, or name them as its supervised "
            f"keys; its images are {images}, its labels {labels}"
        )
    return images[0], labels[0]


def _classes(feature: Any) -> Any:
    """What a feature, or each entry of a list of them, is."""
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _open_split(builder: Any, name: str, split: str) -> Any:
    available = ", ".join(
        f"{key} ({value.num_examples} examples)"
        for key, value in sorted(builder.info.splits.items())
    )
    try:
        chosen = builder.info.splits[split]
        if not chosen.num_examples:
            raise DataError(f"split {split!r} of {name} is empty; there are {available}")
        _check_files(name, [epath.Path(part.filename) for part in chosen.file_instructions])
        return builder.as_data_source(
            split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format="array_record",
        )
    except (KeyError, ValueError, AssertionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name} has no split {split!r} ({error}); there are {available}"
        ) from error


def _check_files(name: str, files: list[epath.Path]) -> None:
    """Raises a DataError if a file is missing, which the reader would notice only in passing."""
    there = {path.name for path in files[0].parent.iterdir()}
    missing = sorted({path.name for path in files} - there)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} files of {name} are missing in {files[0].parent}: "
            f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}"
        )
