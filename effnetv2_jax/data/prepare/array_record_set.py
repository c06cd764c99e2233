"""Makes TFDS sets of ArrayRecord files, so that it can be interrupted and goes on."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.prepare.recode import recode
from effnetv2_jax.data.record import DataError, DecodeError, Source
from effnetv2_jax.system.checksums import file_sha256

MANIFEST = "prepare.json"
"""Says what a set is made from, and which of its files are finished."""
CHECKSUMS = "SHA256SUMS"
"""Of all files but the manifest, for `sha256sum -c`."""
SHARD_BYTES = 2**28
"""About the size of a file."""

_INCOMPLETE = ".incomplete"
_SAMPLE = 256

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a set is made. The same source, recipe and library versions give the same bytes."""

    short_side: int | None = None
    """Larger pictures are shrunk to this many pixels on the short side, antialiased (Lanczos)."""
    quality: int = 95
    """Of the JPEG files that shrunk and turned pictures become."""
    max_pixels: int = MAX_PIXELS
    """Larger pictures are left out, unless they are JPEG files that are shrunk."""
    check: bool = True
    """Whether every picture is decoded, and left out if it cannot be."""
    max_labels: int = 1
    """Labels that an example may have; above 1, the set has the feature `labels`, not `label`."""
    shards: int | None = None
    """Files of each split; None takes one for every `SHARD_BYTES`."""
    seed: int = 0
    """Of the order of the examples."""


class _LeftOut(NamedTuple):
    """A picture that is left out."""

    key: str
    reason: str


class _Shard(NamedTuple):
    """A finished file."""

    sha256: str
    size: int
    """In bytes."""
    examples: int
    payload: int
    """Bytes of the examples, before the file compresses them."""
    unreadable: dict[str, str]
    """Why which pictures were left out."""


def prepare(
    sources: Mapping[str, Source],
    to: str | os.PathLike[str],
    name: str,
    recipe: Recipe,
    *,
    version: str = "1.0.0",
    root: str = "",
    threads: int | None = None,
    max_unreadable: int = 100,
) -> tfds.core.DatasetInfo:
    """Makes a set, or what is missing of it.

    Args:
      sources: the examples of each split; all have the same classes.
      to: the data directory, where other sets may lie.
      name, version: of the set.
      recipe: how it is made.
      root: what examples' keys begin with and their `file_name` leaves out.
      threads: that read, decode and compress; None takes one per CPU core.
      max_unreadable: pictures that may be left out.

    Returns:
      What TFDS says of the set, such as its `data_dir` and `splits`.

    Raises:
      DataError: there is a set of that name and version made from something else, more than
        `max_unreadable` pictures cannot be read, an example has too many labels or one that is out
        of range, the classes differ, or a name does not suit TFDS.
      OSError: a file cannot be written.
    """
    if "://" in str(to):
        raise DataError(
            f"--to={to}: a set is made in a local directory; copy it when it is finished"
        )
    folder = pathlib.Path(to).expanduser() / name / version
    info = _describe(folder, name, version, sources, recipe)
    splits = [_NewSplit(info, split, source, recipe, root) for split, source in sources.items()]
    manifest = _Manifest(folder, _arguments(recipe, splits))
    with tqdm(total=sum(map(len, splits)), unit="pictures", disable=None) as progress:
        for split in splits:
            for path, positions in split.files.items():
                if manifest.has(path):
                    progress.update(len(positions))
                    continue
                examples = split.examples(positions, threads or os.cpu_count() or 1)
                allowed = max_unreadable - manifest.count_unreadable()
                with contextlib.closing(examples):
                    manifest.add(path, _write(path, examples, allowed, progress))
    info.set_splits(tfds.core.splits.SplitDict([split.describe(manifest) for split in splits]))
    _finish(folder, info, manifest)
    return info


def verify(folder: pathlib.Path) -> list[str]:
    """Reads a finished set again.

    Returns:
      The files that are missing, or have other bytes than when they were written.

    Raises:
      DataError: there is no finished set in the folder.
    """
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
    except FileNotFoundError:
        raise DataError(f"{folder} holds no finished set: there is no {CHECKSUMS}") from None
    wrong = []
    for line in tqdm(lines, unit="files", disable=None):
        digest, name = line.split(maxsplit=1)
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            wrong.append(name)
    return wrong


class _NewSplit:
    """The examples of a split in their new order, and the files that they go to."""

    def __init__(
        self, info: tfds.core.DatasetInfo, name: str, source: Source, recipe: Recipe, root: str
    ) -> None:
        self.name = name
        self.source = source
        self.order = np.random.default_rng(recipe.seed).permutation(len(source))
        self._recipe = recipe
        self._root = root
        self._template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(info.data_dir),
            dataset_name=info.name,
            split=name,
            filetype_suffix="array_record",
        )
        count = min(recipe.shards or self._estimate_shards(), len(source))
        bounds = [len(source) * number // count for number in range(count + 1)]
        paths = [
            pathlib.Path(self._template.sharded_filepath(shard_index=number, num_shards=count))
            for number in range(count)
        ]
        self.files = dict(zip(paths, map(range, bounds, bounds[1:])))

    def __len__(self) -> int:
        return len(self.order)

    def examples(self, positions: range, threads: int) -> Generator[bytes | _LeftOut, None, None]:
        """Makes the examples at these positions, a few ahead."""
        executor = ThreadPoolExecutor(threads)
        pending: collections.deque[Future[bytes | _LeftOut]] = collections.deque()
        try:
            for position in positions:
                pending.append(executor.submit(self._example, position))
                if len(pending) > 4 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)

    def describe(self, manifest: "_Manifest") -> tfds.core.SplitInfo:
        """What TFDS has to know, once all files are finished."""
        shards = [manifest.shards[path.name] for path in self.files]
        return tfds.core.SplitInfo(
            name=self.name,
            shard_lengths=[shard.examples for shard in shards],
            num_bytes=sum(shard.payload for shard in shards),
            filename_template=self._template,
        )

    def _estimate_shards(self) -> int:
        sample = [self._example(position) for position in range(min(_SAMPLE, len(self)))]
        sizes = [len(example) for example in sample if isinstance(example, bytes)]
        return max(1, round(len(self) * float(np.mean(sizes or [0])) / SHARD_BYTES))

    def _example(self, position: int) -> bytes | _LeftOut:
        """A serialised tf.train.Example."""
        index = int(self.order[position])
        key = f"{self.source.name} example {index}"
        try:
            key, encoded, labels = self.source[index]
            encoded = recode(
                encoded,
                short_side=self._recipe.short_side,
                quality=self._recipe.quality,
                check=self._recipe.check,
                exif=self.source.exif,
                max_pixels=self._recipe.max_pixels,
            )
        except (DecodeError, OSError) as error:
            return _LeftOut(key, str(error))
        self._check_labels(key, labels)
        example = tf_example_pb2.Example()
        fields = example.features.feature
        file_name = key.removeprefix(self._root).encode(errors="surrogateescape")
        fields["file_name"].bytes_list.value.append(file_name)
        fields["image"].bytes_list.value.append(encoded)
        fields[_label_key(self._recipe)].int64_list.value.extend(labels)
        return example.SerializeToString(deterministic=True)

    def _check_labels(self, key: str, labels: Sequence[int]) -> None:
        classes = len(self.source.class_names)
        if any(not 0 <= label < classes for label in labels):
            raise DataError(
                f"{key} has the labels {labels}, but there are {classes} classes; where labels "
                "count from 1, --first-label has to say so"
            )
        if len(labels) > self._recipe.max_labels or (self._recipe.max_labels == 1 and not labels):
            raise DataError(
                f"{key} has {len(labels)} labels; with other than one, set --max-labels"
            )


class _Manifest:
    """What a set is made from, and which of its files are finished; kept beside them."""

    def __init__(self, folder: pathlib.Path, arguments: Mapping[str, Any]) -> None:
        """Begins a manifest, or goes on with the one that there is.

        Raises:
          DataError: that one is of other arguments, or the folder holds something else.
        """
        self._path = folder / MANIFEST
        self._arguments = dict(arguments)
        self.shards: dict[str, _Shard] = {}
        (folder / _INCOMPLETE).mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            begun = json.loads(self._path.read_text())
            self.shards = {name: _Shard(**shard) for name, shard in begun["files"].items()}
            if self.shards:
                # Earlier versions had one limit, and did not note it.
                limit = {"max_pixels": MAX_PIXELS}
                _check_same(folder, limit | begun["arguments"], arguments)
        elif any(path.name != _INCOMPLETE for path in folder.iterdir()):
            raise DataError(
                f"{folder} holds something that was not made here; choose another --to, --name or "
                "--version"
            )
        self._save()

    def has(self, path: pathlib.Path) -> bool:
        """Whether a file is finished and still there."""
        shard = self.shards.get(path.name)
        return shard is not None and path.exists() and path.stat().st_size == shard.size

    def add(self, path: pathlib.Path, shard: _Shard) -> None:
        """Notes a finished file."""
        self.shards[path.name] = shard
        self._save()

    def count_unreadable(self) -> int:
        """How many pictures are left out so far."""
        return sum(len(shard.unreadable) for shard in self.shards.values())

    def _save(self) -> None:
        files = {name: shard._asdict() for name, shard in self.shards.items()}
        new = _unfinished(self._path)
        new.write_text(json.dumps({"arguments": self._arguments, "files": files}, indent=1))
        new.replace(self._path)


def _check_same(folder: pathlib.Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    different = [
        f"{key} was {begun.get(key)!r} and is {now.get(key)!r}"
        for key in sorted({*begun, *now})
        if begun.get(key) != now.get(key)
    ]
    if different:
        raise DataError(
            f"{folder} was begun otherwise: {'; '.join(different)}. Make it the same, remove the "
            "folder, or choose another --to, --name or --version"
        )


def _unfinished(path: pathlib.Path) -> pathlib.Path:
    """Where a file is written before it gets its name; apart from those of other processes."""
    return path.parent / _INCOMPLETE / f"{path.name}.{os.getpid()}"


def _arguments(recipe: Recipe, splits: Sequence[_NewSplit]) -> dict[str, Any]:
    """All that the bytes of a set depend on."""
    arguments: dict[str, Any] = dataclasses.asdict(recipe)
    del arguments["shards"]
    for split in splits:
        digest = hashlib.sha256(split.source.fingerprint.encode() + split.order.tobytes())
        arguments[f"split {split.name}"] = (
            f"{len(split)} pictures in {len(split.files)} files, {digest.hexdigest()[:16]}"
        )
    return arguments


def _write(
    path: pathlib.Path, examples: Iterable[bytes | _LeftOut], allowed: int, progress: tqdm
) -> _Shard:
    """Writes a file, which has its name only when it is whole."""
    new = _unfinished(path)
    count = payload = 0
    unreadable: dict[str, str] = {}
    try:
        writer = ArrayRecordWriter(str(new), "group_size:1")  # As TFDS, for random access.
        for example in examples:
            progress.update()
            if isinstance(example, bytes):
                writer.write(example)
                count += 1
                payload += len(example)
                continue
            unreadable[example.key] = example.reason
            _log.warning("left out %s: %s", example.key, example.reason)
            if len(unreadable) > allowed:
                raise DataError(
                    "too many pictures cannot be read; repair or remove them, or raise "
                    "--max-unreadable"
                )
        writer.close()
    except RuntimeError as error:
        # The writer has no other kind of error.
        raise OSError(f"{path} cannot be written: {error}") from error
    shard = _Shard(file_sha256(new), new.stat().st_size, count, payload, unreadable)
    new.replace(path)
    return shard


def _label_key(recipe: Recipe) -> str:
    return "label" if recipe.max_labels == 1 else "labels"


def _describe(
    folder: pathlib.Path, name: str, version: str, sources: Mapping[str, Source], recipe: Recipe
) -> tfds.core.DatasetInfo:
    """What TFDS has to know of a set, its splits aside."""
    if not re.fullmatch(r"[\w-]+", name):
        raise DataError(f"name {name!r} must consist of letters, digits, _ and -")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise DataError(f"version {version!r} must be like 1.0.0")
    for split in sources:
        if not re.fullmatch(r"\w+", split):
            raise DataError(f"split {split!r} must consist of letters, digits and _")
    classes, *others = {source.class_names for source in sources.values()}
    if others:
        raise DataError("the splits do not have the same classes")
    _check_names(classes)
    try:
        label: Any = tfds.features.ClassLabel(names=list(classes))
    except ValueError as error:
        raise DataError(f"TFDS does not take the names of the classes: {error}") from error
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "file_name": tfds.features.Text(),
        _label_key(recipe): label if recipe.max_labels == 1 else tfds.features.Sequence(label),
    }
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.utils.Version(version),
            data_dir=str(folder),
            module_name="",
        ),
        description=f"{name}, made by effnetv2_jax.data.prepare.",
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", _label_key(recipe)),
    )
    info.set_file_format("array_record")
    return info


def _check_names(classes: Sequence[str]) -> None:
    """Raises a DataError for names of classes that change where TFDS keeps each as a line."""
    odd = [name for name in classes if name.strip().splitlines() != [name] or not _is_utf8(name)]
    if odd:
        raise DataError(
            "a TFDS set keeps the names of its classes as lines of text, which these are not: "
            f"{', '.join(map(ascii, odd[:8]))}. Rename the folders: UTF-8 without line breaks, and "
            "without blanks at the ends"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finish(folder: pathlib.Path, info: tfds.core.DatasetInfo, manifest: _Manifest) -> None:
    """Writes what makes the files a TFDS set; last of all the file by which TFDS finds it."""
    staged = _unfinished(folder / "info")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    info.write_to_directory(staged)
    digests = {name: shard.sha256 for name, shard in manifest.shards.items()}
    digests |= {path.name: file_sha256(path) for path in staged.iterdir()}
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (staged / CHECKSUMS).write_text("".join(lines))
    for path in sorted(staged.iterdir(), key=lambda path: path.name == "dataset_info.json"):
        path.replace(folder / path.name)
    shutil.rmtree(folder / _INCOMPLETE)
