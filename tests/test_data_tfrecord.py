"""TFRecord files read in place: what TensorFlow reads from them, and what damage does."""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import google_crc32c
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import (
    DataError,
    DecodeError,
    Order,
    Source,
    TrainExamples,
    make_batches,
    open_source,
)
from effnetv2_jax.data.record import available
from effnetv2_jax.data.sources.tfrecord_files import choose_files
from effnetv2_jax.data.sources.tfrecord_index import File, load_index
from effnetv2_jax.preprocessing import squashed

CLASSES = 5


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """The cache of indices, apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "effnetv2_jax/tfrecord"


@pytest.fixture(scope="module")
def tf() -> Any:
    tensorflow = pytest.importorskip("tensorflow", reason="compares with TensorFlow's reader")
    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def framed(data: bytes) -> bytes:
    """A record as it stands in a file."""

    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    length = len(data).to_bytes(8, "little")
    return length + masked(length) + data + masked(data)


def picture(value: int) -> bytes:
    """A bitmap of one colour."""
    return b"P6 2 2 255\n" + bytes([value % 256]) * 12


def example(**features: Any) -> bytes:
    """A serialised tf.train.Example; `__` in a name stands for a slash."""
    message = tf_example_pb2.Example()
    for name, values in features.items():
        field = message.features.feature[name.replace("__", "/")]
        for value in values if isinstance(values, list) else [values]:
            kinds = {bytes: field.bytes_list, int: field.int64_list, float: field.float_list}
            kinds[type(value)].value.append(value)
    return message.SerializeToString()


def imagenet(value: int) -> bytes:
    """An example as ImageNet's converters write it, with labels from 1 on."""
    return example(
        image__encoded=picture(value),
        image__class__label=1 + value % CLASSES,
        image__filename=f"n{value:08}.JPEG".encode(),
    )


def write(path: pathlib.Path, records: Sequence[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, records)))


def write_imagenet(
    root: pathlib.Path, split: str = "train", shards: int = 3, each: int = 4
) -> None:
    for shard in range(shards):
        values = range(shard * each, (shard + 1) * each)
        write(root / f"{split}-{shard:05}-of-{shards:05}", [imagenet(value) for value in values])


def opened(root: pathlib.Path | str, split: str = "train", **fields: Any) -> Source:
    fields = {"num_classes": CLASSES, "first_label": 1} | fields
    return open_source(
        DataConfig(source="tfrecord", path=str(root), train_split=split, **fields), "train"
    )


def values(source: Source) -> list[int | None]:
    """The brightness of every picture; None where it cannot be read."""
    found: list[int | None] = []
    for index in range(len(source)):
        try:
            found.append(source[index].encoded[-1])
        except DecodeError:
            found.append(None)
    return found


def test_records_are_found_in_any_order(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path)
    source = opened(tmp_path)
    assert len(source) == 12
    for index in random.Random(0).sample(range(12), 12):
        record = source[index]
        assert record.encoded == picture(index)
        assert record.labels == (index % CLASSES,)
    position = len(framed(imagenet(4)))
    assert source[5].key == (f"{tmp_path}/train-00001-of-00003 at byte {position} (n00000005.JPEG)")
    assert source.class_names == ("0", "1", "2", "3", "4")
    assert source.name == f"{tmp_path} train"
    assert not source.exif


def test_slices(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path)
    assert values(opened(tmp_path, "train[3:7]")) == [3, 4, 5, 6]
    assert available(opened(tmp_path, "train[3:7]")) == 12
    assert values(opened(tmp_path, "train[-50%:]")) == [*range(6, 12)]
    with pytest.raises(DataError, match=r"'train\[5:5\]' is empty"):
        opened(tmp_path, "train[5:5]")
    fingerprints = {opened(tmp_path, split).fingerprint for split in ("train", "train[1:]")}
    assert len(fingerprints) == 2


def test_a_copy_has_the_same_fingerprint(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert opened(tmp_path / "one").fingerprint == opened(tmp_path / "two").fingerprint


def test_other_keys_and_several_labels(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path / "train.tfrecord",
        [
            example(id=b"n0_1", image=picture(1), labels=[3, 1, 3]),
            example(id=7, image=picture(2), labels=[]),
            example(image=picture(3), label=2),
        ],
    )
    source = opened(tmp_path, first_label=0)
    assert [source[index].labels for index in range(3)] == [(3, 1), (), (2,)]
    assert source[0].key.endswith("train.tfrecord at byte 0 (n0_1)")
    assert source[1].key.endswith("(7)")
    assert source[2].key[-1].isdigit()


def test_class_names(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path)
    (tmp_path / "a.labels.txt").write_text("too\nfew\n")
    (tmp_path / "label.labels.txt").write_text("ant\nbee\ncow\ndog\nelk\n")
    assert opened(tmp_path).class_names == ("ant", "bee", "cow", "dog", "elk")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": 1}, r"none of image/encoded, image; it has label"),
        ({"image": picture(0), "x": 1}, r"none of image/class/label.*; it has image, x"),
        (
            {"image": picture(0), "label": b"cat"},
            "its label is the text 'cat', which is none of the 5 classes",
        ),
        ({"image": 3, "label": 1}, "'image' is a int64_list, but must be a bytes_list"),
    ],
)
def test_examples_of_another_kind(
    tmp_path: pathlib.Path, fields: dict[str, Any], message: str
) -> None:
    write(tmp_path / "train.tfrecord", [example(**fields)])
    with pytest.raises(DataError, match=rf"train\.tfrecord at byte 0.*{message}"):
        opened(tmp_path)[0]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff", example(image=[b"1", b"2"], label=1), b""],
    ids=["no protocol buffer", "two pictures", "nothing"],
)
def test_records_that_hold_no_picture(tmp_path: pathlib.Path, data: bytes) -> None:
    write(tmp_path / "train.tfrecord", [data])
    with pytest.raises((DecodeError, DataError), match=r"train\.tfrecord at byte 0"):
        opened(tmp_path)[0]


def test_the_number_of_classes_must_be_stated(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path)
    with pytest.raises(DataError, match=r"data\.num_classes must be stated"):
        opened(tmp_path, num_classes=None)


# Which files are the split's.


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train-00000-of-00002", "train-00001-of-00002"]),
        ("train", ["imagenet2012-train.tfrecord-00000-of-00001"]),
        ("train", ["toy-train.tfrecord-00000", "toy-train.tfrecord-00001"]),
        ("train", ["train_00.tfrecord", "train_01.tfrecord"]),
        ("train", ["train0.tfrecords", "train1.tfrecords"]),
        ("train", ["ILSVRC2012_Train_0.TFRecord"]),
        ("validation", ["val-00000-of-00001"]),
        ("val", ["validation-00000-of-00001"]),
        ("valid", ["my_val.tfrecord"]),
        ("test_a", ["toy-test_a.tfrecord"]),
    ],
)
def test_files_of_a_split(split: str, names: list[str]) -> None:
    others = [
        "training-00000-of-00001",
        "train.txt",
        "train.array_record-00000-of-00001",
        ".train-00000-of-00009",
        "train.tfrecord.gz",
        "train-00000-of-00002.part",
        "retrain.tfrecord",
        "test-00000-of-00001",
        "label.labels.txt",
        "dataset_info.json",
    ]
    assert choose_files([*reversed(names), *others], split) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train-00000-of-00004", "train-00003-of-00004"],
            "2 of 4 files are missing: train-00001-of-00004, train-00002-of-00004",
        ),
        (["train-00000-of-00001", "train-00000-of-00002"], "are of different sets"),
        (["a-train-00000-of-00001", "b-train-00000-of-00001"], "are of different sets"),
        (["train-00000-of-00001", "train_more.tfrecord"], "are of different sets"),
    ],
)
def test_sets_that_are_not_whole(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_files(names, "train")


def test_a_folder_for_every_split(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "train/part-00000-of-00001", [imagenet(1)])
    write(tmp_path / "val/part-00000-of-00001", [imagenet(2)])
    write(tmp_path / "test/part-00000-of-00001", [imagenet(3)])
    write(tmp_path / "test.tfrecord", [imagenet(4)])
    assert [values(opened(tmp_path, split)) for split in ("train", "validation", "test")] == [
        [1],
        [2],
        [4],
    ]
    (tmp_path / "train/part-00000-of-00001").rename(tmp_path / "train/part-00000-of-00002")
    with pytest.raises(DataError, match=r"/train, split 'train': 1 of 2 .*part-00001"):
        opened(tmp_path)


def test_linked_files(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path / "elsewhere", shards=1)
    (tmp_path / "data").mkdir()
    name = "train-00000-of-00001"
    (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "data/broken").symlink_to(tmp_path / "nowhere")
    assert values(opened(tmp_path / "data")) == [0, 1, 2, 3]


def test_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: there is no directory .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no TFRecord files of split 'train'.*holds nothing"):
        opened(tmp_path)
    write_imagenet(tmp_path, "validation", shards=1)
    with pytest.raises(DataError, match="it holds validation-00000-of-00001"):
        opened(tmp_path)
    (tmp_path / "train.tfrecord").write_bytes(b"\x1f\x8b" + bytes(1000))
    with pytest.raises(DataError, match=r"no records in .*/train\.tfrecord .*unpacked"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/imagenet", r'gcsfs.*pip install -e "\.\[gcs\]"'),
        ("s3://bucket/imagenet", r"data\.path: s3://bucket/imagenet needs a library"),
        ("nonsense://imagenet", r"data\.path: nonsense://imagenet: Protocol not known"),
    ],
)
def test_file_systems_that_are_not_installed(path: str, message: str) -> None:
    try:
        fsspec.core.url_to_fs(path)
    except (ImportError, ValueError):
        with pytest.raises(DataError, match=message):
            opened(path)
    else:
        pytest.skip("it is installed")


# Remote files.


def test_remote_files() -> None:
    system = fsspec.filesystem("memory")
    for shard in range(2):
        records = [imagenet(value) for value in range(3 * shard, 3 * shard + 3)]
        system.pipe(f"/set/train-{shard:05}-of-00002", b"".join(map(framed, records)))
    system.pipe("/set/label.labels.txt", b"a\nb\nc\nd\ne\n")
    source = opened("memory://set/")
    assert values(source) == [*range(6)]
    assert source.class_names == ("a", "b", "c", "d", "e")
    assert source[3].key == "memory://set/train-00001-of-00002 at byte 0 (n00000003.JPEG)"
    system.rm("/set/train-00001-of-00002")
    with pytest.raises(DecodeError, match=r"memory://set/train-00001-of-00002 at byte 0"):
        source[3]
    system.rm("/set", recursive=True)


# Damage.


def damaged(tmp_path: pathlib.Path, content: bytes) -> Source:
    (tmp_path / "train-00000-of-00001").write_bytes(content)
    # The cache must not take one state of a file for another of the same size and time.
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    return opened(tmp_path)


RECORDS = [framed(imagenet(value)) for value in range(6)]
STARTS = [0, *itertools.accumulate(map(len, RECORDS))]
WHOLE = b"".join(RECORDS)


@given(position=st.integers(0, len(WHOLE) - 1), change=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_costs_its_record_alone(
    tmp_path_factory: pytest.TempPathFactory, position: int, change: int
) -> None:
    content = bytearray(WHOLE)
    content[position] ^= change
    source = damaged(tmp_path_factory.getbasetemp(), bytes(content))
    hit = next(number for number in range(6) if position < STARTS[number + 1])
    assert values(source) == [None if number == hit else number for number in range(6)]
    with pytest.raises(DecodeError, match=rf"train-00000-of-00001 at byte {STARTS[hit]}: its "):
        source[hit]


@given(stop=st.integers(1, len(WHOLE)))
@settings(max_examples=100, deadline=None)
def test_a_truncated_file_loses_its_last_record(
    tmp_path_factory: pytest.TempPathFactory, stop: int
) -> None:
    whole = sum(start <= stop for start in STARTS[1:])
    if not whole:
        with pytest.raises(DataError, match="no records in"):
            damaged(tmp_path_factory.getbasetemp(), WHOLE[:stop])
        return
    source = damaged(tmp_path_factory.getbasetemp(), WHOLE[:stop])
    assert values(source) == [*range(whole)] + [None] * (stop != STARTS[whole])


@given(start=st.integers(0, len(WHOLE)), length=st.integers(0, 400), put=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_nothing_wrong_is_ever_read(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, put: bytes
) -> None:
    content = WHOLE[:start] + put + WHOLE[start + length :]
    with contextlib.suppress(DataError):
        source = damaged(tmp_path_factory.getbasetemp(), content)
        found = [value for value in values(source) if value is not None]
        before = [number for number in range(6) if STARTS[number + 1] <= start]
        after = [number for number in range(6) if STARTS[number] >= start + length]
        assert found[: len(before)] == before
        # Where bytes are missing, the record before them may cover the one that follows.
        assert set(after[1:]) <= set(found) <= set(range(6))


@pytest.mark.parametrize("size", range(2**20 - 20, 2**20 + 20, 7))
@pytest.mark.parametrize("filling", [b"\0", b"\1", b"\0\0\0\0\0\0\0\1"])
def test_the_next_record_is_found_far_away(
    tmp_path: pathlib.Path, size: int, filling: bytes
) -> None:
    large = bytearray(framed((filling * size)[:size]))
    large[3] ^= 1
    source = damaged(tmp_path, RECORDS[0] + large + RECORDS[1] + large)
    assert values(source) == [0, None, 1, None]


def labels_of(tmp_path: pathlib.Path, label: list[int] | list[float], **fields: Any) -> Any:
    write(tmp_path / "train-00000-of-00001", [example(image=picture(0), label=label)])
    return opened(tmp_path, **fields)[0].labels


@given(st.integers(3, 40), st.data(), st.sampled_from([int, float]))
@settings(max_examples=25, deadline=None)
def test_a_label_may_be_a_0_or_1_for_every_class(
    tmp_path_factory: pytest.TempPathFactory, classes: int, data: st.DataObject, kind: Any
) -> None:
    root = tmp_path_factory.mktemp("hot")
    hot = data.draw(st.sets(st.integers(0, classes - 1)))
    label = [kind(number in hot) for number in range(classes)]
    stated = {"num_classes": classes, "first_label": data.draw(st.integers(0, 1))}
    assert labels_of(root, label, max_labels=classes, **stated) == tuple(sorted(hot))
    one = data.draw(st.integers(0, classes - 1))
    label = [kind(number == one) for number in range(classes)]
    assert labels_of(root, label, **stated) == (one,)


def test_lists_of_labels_that_look_alike(tmp_path: pathlib.Path) -> None:
    two = {"num_classes": 2, "first_label": 0}
    assert labels_of(tmp_path, [1, 0], **two) == (0,)
    assert labels_of(tmp_path, [1, 0], max_labels=2, **two) == (1, 0)
    assert labels_of(tmp_path, [1, 1, 1], num_classes=3, first_label=0) == (1,)
    assert labels_of(tmp_path, [2, 0, 1], num_classes=3, first_label=0) == (2, 0, 1)
    with pytest.raises(DataError, match=r"4 times 0 or 1, .* but 5 classes are stated"):
        labels_of(tmp_path, [0, 0, 1, 0])
    for label in ([0.2, 0.8, 0.0, 0.0, 0.0], [3.0]):
        with pytest.raises(DataError, match="labels are floating-point numbers"):
            labels_of(tmp_path, label)


def test_damage_is_skipped_or_fatal(tmp_path: pathlib.Path) -> None:
    content = bytearray(b"".join(RECORDS * 4))
    for number in (1, 7, 20):  # In a length, the data, and a checksum.
        content[sum(map(len, (RECORDS * 4)[:number])) + {1: 2, 7: 40, 20: 9}[number]] ^= 16
    source = damaged(tmp_path, bytes(content))

    def epoch(max_unreadable: int) -> list[int]:
        data = DataConfig(threads=2, max_unreadable=max_unreadable)
        order = Order(len(source), seed=0)
        examples = TrainExamples(order=order, data=data, preprocessing=squashed(32), batch_size=24)
        with contextlib.closing(make_batches(source, examples)) as batches:
            return sorted(next(batches)["labels"][:, 0].tolist())

    # Each of the three gives way to another, of any class.
    sound = Counter(value % CLASSES for value in [*range(6)] * 4) - Counter([1, 1, 2])
    found = Counter(epoch(max_unreadable=3))
    assert sound < found
    assert (found - sound).total() == 3
    with pytest.raises(DataError, match=r"1 pictures cannot be read.*at byte \d+: its"):
        epoch(max_unreadable=0)


def test_a_file_that_vanishes_counts_for_every_record(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path)
    source = opened(tmp_path)
    (tmp_path / "train-00001-of-00003").unlink()
    assert values(source) == [0, 1, 2, 3, None, None, None, None, 8, 9, 10, 11]
    with pytest.raises(DecodeError, match=r"train-00001-of-00003 at byte 0: .*No such file"):
        source[4]


# The cache.


def test_a_changed_file_is_indexed_anew(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path, shards=1)
    assert len(opened(tmp_path)) == 4
    write(tmp_path / "train-00000-of-00001", [imagenet(value) for value in range(7)])
    assert values(opened(tmp_path)) == [*range(7)]
    # The same size, but not the same time.
    records = [framed(imagenet(value)) for value in range(7)]
    merged = framed(imagenet(9) + bytes(len(records[0])))
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(merged + b"".join(records[2:]))
    os.utime(path, (1, 1))
    assert len(opened(tmp_path)) == 6


def test_an_index_is_made_once(tmp_path: pathlib.Path, cache: pathlib.Path) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    write_imagenet(tmp_path)
    opened(tmp_path)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    assert values(opened(tmp_path, "train[2:]")) == [*range(2, 12)]
    assert kept.stat().st_mtime_ns == before
    assert [*cache.iterdir()] == [kept]


@given(position=st.floats(0, 1, exclude_max=True), change=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_cache_is_made_anew(
    tmp_path_factory: pytest.TempPathFactory,
    cache: pathlib.Path,
    position: float,
    change: int,
) -> None:
    root = tmp_path_factory.getbasetemp() / "cached"
    if not root.exists():
        write_imagenet(root)
    shutil.rmtree(cache, ignore_errors=True)
    opened(root)
    (kept,) = cache.iterdir()
    content = bytearray(kept.read_bytes())
    if change:
        content[int(position * len(content))] ^= change
    else:
        del content[int(position * len(content)) :]
    kept.write_bytes(content)
    assert values(opened(root)) == [*range(12)]


def test_two_at_once(tmp_path: pathlib.Path, cache: pathlib.Path) -> None:
    write_imagenet(tmp_path, shards=20)
    system = fsspec.filesystem("file")
    files = [
        File(path.name, str(path), path.stat().st_size, "0") for path in sorted(tmp_path.iterdir())
    ]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        indices = [*pool.map(lambda _: load_index(system, files), range(16))]
    for index in indices:
        np.testing.assert_array_equal(index.ends, indices[0].ends)
    assert all(path.suffix == ".npz" for path in cache.iterdir())


def test_a_cache_that_cannot_be_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_imagenet(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "train-00000-of-00003"))
    assert values(opened(tmp_path)) == [*range(12)]
    assert "the index cannot be kept" in caplog.text


# TensorFlow and TFDS read and write the same.


@pytest.mark.parity
def test_what_tensorflow_writes(tmp_path: pathlib.Path, tf: Any) -> None:
    random_bytes = np.random.default_rng(0).bytes
    pictures = [random_bytes(size) for size in (0, 1, 1000, 70_000, 3, 200_000)]
    for shard in range(2):
        path = tmp_path / f"train-{shard:05}-of-00002"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for label, encoded in enumerate(pictures[3 * shard : 3 * shard + 3], start=1):
                features = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[encoded])
                    ),
                    "image/class/label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[label])
                    ),
                    "image/class/synset": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[b"n01440764"])
                    ),
                }
                record = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(record.SerializeToString())
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    paths = sorted(map(str, tmp_path.iterdir()))
    read = [tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(paths)]
    source = opened(tmp_path)
    assert len(source) == len(read) == 6
    for index in (5, 0, 3, 1, 4, 2):
        assert source[index].encoded == read[index]["image/encoded"].numpy()
        assert source[index].labels == (int(read[index]["image/class/label"]) - 1,)


@pytest.mark.parity
def test_tensorflow_reads_what_is_written_here(tmp_path: pathlib.Path, tf: Any) -> None:
    write_imagenet(tmp_path)
    paths = sorted(map(str, tmp_path.iterdir()))
    read = [record.numpy() for record in tf.data.TFRecordDataset(paths)]
    assert read == [imagenet(value) for value in range(12)]


@pytest.mark.parity
@pytest.mark.parametrize("several", [False, True])
def test_what_tfds_writes(tmp_path: pathlib.Path, tf: Any, several: bool) -> None:
    names = ["ant", "bee", "cow", "dog", "elk"]
    label = tfds.features.ClassLabel(names=names)
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "file_name": tfds.features.Text(),
        **({"labels": tfds.features.Sequence(label)} if several else {"label": label}),
    }
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name="toy",
            version=tfds.core.utils.Version("1.0.0"),
            data_dir=str(tmp_path),
            module_name="",
        ),
        features=tfds.features.FeaturesDict(features),
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=4, file_format="tfrecord")
    writer.initialize_splits(["train", "validation"])
    for split, count in (("train", 10), ("validation", 3)):
        for value in range(count):
            labels = {"labels": [value % 5, 4]} if several else {"label": value % 5}
            features = {"image": picture(value), "file_name": f"{value}.jpg", **labels}
            writer.add_examples({split: [features]})
    writer.close_all()
    source = opened(tmp_path, first_label=0)
    assert source.class_names == tuple(names)
    assert values(source) == [*range(10)]
    assert source[6].key.endswith("(6.jpg)")
    expected = [(value % 5, 4) if several else (value % 5,) for value in range(10)]
    assert [source[index].labels for index in range(10)] == [
        tuple(dict.fromkeys(labels)) for labels in expected
    ]
    assert values(opened(tmp_path, "val", first_label=0)) == [0, 1, 2]


def test_keys_and_files_that_are_stated(tmp_path: pathlib.Path) -> None:
    records = [
        example(jpeg=picture(n), species=f"bird {n % 3}".encode(), image=b"mask", number=n)
        for n in range(6)
    ]
    write(tmp_path / "birds-a-1.rec", records[:4])
    write(tmp_path / "birds-a-2.rec", records[4:])
    write(tmp_path / "birds-b-1.rec", records[:1])
    (tmp_path / "labels.txt").write_text("bird 2\nbird 0\nbird 1\n")
    fields: dict[str, Any] = {"picture_key": "jpeg", "label_key": "species", "num_classes": 3}
    fields |= {"first_label": 0, "files": "birds-{split}-*.rec"}
    source = opened(tmp_path, "a", **fields)
    assert [source[n].encoded for n in range(6)] == [picture(n) for n in range(6)]
    assert [source.class_names[source[n].labels[0]] for n in range(6)] == [
        f"bird {n % 3}" for n in range(6)
    ]
    assert len(opened(tmp_path, "b", **fields)) == 1
    together = fields | {"files": "birds-*.rec"}
    assert len(opened(tmp_path, "all[:50%]", **together)) == 4
    with pytest.raises(DataError, match="the same for every split"):
        opened(tmp_path, "a", **together)
    with pytest.raises(DataError, match=r"has no file 'birds-c-\*.rec' \(data.files\)"):
        opened(tmp_path, "c", **fields)
    by_number = opened(tmp_path, "a", **fields | {"label_key": "number", "num_classes": 6})
    assert [by_number[n].labels for n in range(6)] == [(n,) for n in range(6)]
    assert by_number.fingerprint != source.fingerprint
    with pytest.raises(DataError, match=r"has none of kind; it has .* Set data.label_key"):
        opened(tmp_path, "a", **fields | {"label_key": "kind"})[0]
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(DataError, match="its label is the text 'bird 0', which is none of the 3"):
        opened(tmp_path, "a", **fields)[0]


def test_files_in_folders_of_their_splits(tmp_path: pathlib.Path) -> None:
    write_imagenet(tmp_path / "train", "part")
    write_imagenet(tmp_path / "val", "part", shards=1)
    for split, count in (("train", 12), ("val", 4)):
        assert len(opened(tmp_path, split, files="{split}/part-*")) == count
