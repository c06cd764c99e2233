"""Sets of TensorFlow Datasets, written here as ArrayRecord, and the embedded one."""

import io
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from effnetv2_jax import data
from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, Source, open_source
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.record import available
from effnetv2_jax.data.sources.open import Purpose


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    root: pathlib.Path,
    name: str = "toy",
    *,
    config: str = "",
    version: str = "1.0.0",
    features: dict | None = None,
    supervised: tuple[str, str] | None = ("image", "label"),
    train: int = 10,
    file_format: str = "array_record",
) -> None:
    """Writes a set whose example i shows the brightness i and has label i % 3."""
    features = features or {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
    }
    folder = root / name / config / version
    folder.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.utils.Version(version),
            data_dir=str(folder),
            module_name="",
            config_name=config or None,
        ),
        features=tfds.features.FeaturesDict(features),
        supervised_keys=supervised,
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=4, file_format=file_format)
    writer.initialize_splits(["train", "test"])
    values = {
        "image": png,
        "picture": png,
        "mask": png,
        "label": lambda index: index % 3,
        "super": lambda index: 0,
        "file_name": lambda index: f"file{index}.png",
        "boxes": lambda index: np.zeros((index, 2), np.float32),
    }
    for split, count in (("train", train), ("test", 3)):
        for index in range(count):
            writer.add_examples({split: [{key: values[key](index) for key in features}]})
    writer.close_all()


def opened(root: pathlib.Path, name: str = "toy", split: str = "train", **fields: Any) -> Source:
    return open_source(
        DataConfig(source="tfds", name=name, path=str(root), train_split=split, **fields), "train"
    )


def brightness(source: Source) -> list[int]:
    return [int(decode(source[index].encoded).mean()) for index in range(len(source))]


def test_an_unregistered_set_with_several_shards(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    source = opened(tmp_path)
    assert source.class_names == ("ant", "bee", "cow")
    assert brightness(source) == list(range(10))
    assert [source[index].labels for index in range(10)] == [(index % 3,) for index in range(10)]
    assert source[4].key == "toy/1.0.0 train example 4"
    assert not source.exif
    assert len(open_source(DataConfig(source="tfds", name="toy", path=str(tmp_path)), "eval")) == 3


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[3:]", range(3, 10)),
        ("train[:30%]", range(3)),
        ("train[-2:]", range(8, 10)),
        ("train[:2]+test[1:]", [0, 1, 1, 2]),
    ],
)
def test_slices_of_splits(tmp_path: pathlib.Path, split: str, expected: Iterable[int]) -> None:
    write(tmp_path)
    source = opened(tmp_path, split=split)
    assert available(source) == (13 if "test" in split else 10)
    assert brightness(source) == list(expected)
    assert source.fingerprint != opened(tmp_path).fingerprint


def test_other_features_do_no_harm_and_a_file_name_names_the_example(
    tmp_path: pathlib.Path,
) -> None:
    write(
        tmp_path,
        features={
            "boxes": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "file_name": tfds.features.Text(),
            "mask": tfds.features.Image(encoding_format="png"),
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
        },
    )
    source = opened(tmp_path)
    assert source[4].key == "toy/1.0.0 train example 4 (file4.png)"
    assert source.class_names == ("0", "1", "2")


def test_features_are_found_without_supervised_keys(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path,
        features={
            "picture": tfds.features.Image(encoding_format="png"),
            "super": tfds.features.ClassLabel(num_classes=1),
        },
        supervised=None,
    )
    assert opened(tmp_path)[2].labels == (0,)


@pytest.mark.parametrize(
    "features",
    [
        {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
            "super": tfds.features.ClassLabel(num_classes=3),
        },
        {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.Scalar(np.int64),
        },
    ],
)
def test_sets_without_one_image_and_one_label(
    tmp_path: pathlib.Path, features: dict[str, Any]
) -> None:
    write(tmp_path, features=features, supervised=None)
    with pytest.raises(DataError, match="toy must have one image and one class label"):
        opened(tmp_path)


def test_versions_and_configs(tmp_path: pathlib.Path) -> None:
    for config, version, train in (
        ("big", "1.0.0", 5),
        ("big", "1.10.0", 6),
        ("big", "1.9.0", 7),
        ("small", "2.0.0", 8),
    ):
        write(tmp_path, config=config, version=version, train=train)
    write(tmp_path, "plain", version="3.0.2", train=4)
    assert len(opened(tmp_path, "toy/big")) == 6
    assert len(opened(tmp_path, "toy/big:1.9.0")) == 7
    assert len(opened(tmp_path, "toy:2.0.0")) == 8
    assert len(opened(tmp_path, "plain:3.0.2")) == 4
    with pytest.raises(DataError, match=r"more than one set .* toy/big:1\.0\.0, .*toy/small:2"):
        opened(tmp_path, "toy")
    with pytest.raises(DataError, match=r"'toy/big:7\.0\.0' names no set"):
        opened(tmp_path, "toy/big:7.0.0")


def test_the_data_directory_comes_from_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(open_source(DataConfig(source="tfds", name="toy"), "train")) == 10


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("toi", "train", "did you mean 'toy'"),
        ("imagenet2012", "train", r"it holds toy\. .*file_format='array_record'"),
        ("toy!", "train", "is no TFDS name"),
        (
            "toy",
            "trian",
            r"no split 'trian' .*there are test \(3 examples\), train \(10 examples\)",
        ),
        ("toy", "train[3:", "no split"),
        ("toy", "train[:0]", "is empty"),
    ],
)
def test_what_does_not_exist(tmp_path: pathlib.Path, name: str, split: str, message: str) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, name, split)


def test_an_empty_data_directory(tmp_path: pathlib.Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="holds no prepared set"):
            opened(root)


def test_sets_prepared_in_another_format(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    info = tmp_path / "toy/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        DataError, match="prepared as tfrecord, which has no random access"
    ) as error:
        opened(tmp_path)
    assert f"data.source=tfrecord reads its files where they lie (data.path={tmp_path}" in (
        str(error.value)
    )
    assert f"data.prepare --format=tfrecord --from={tmp_path}" in str(error.value)


def test_a_damaged_set(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    (tmp_path / "toy/1.0.0/features.json").unlink()
    with pytest.raises(DataError, match="cannot be read as a TFDS set"):
        opened(tmp_path)


def test_the_embedded_set_is_what_its_readme_says() -> None:
    names = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    counts: dict[Purpose, list[int]] = {
        "train": [322, 398, 327, 475, 384, 110],
        "eval": [81, 100, 82, 119, 96, 27],
    }
    seen: set[str] = set()
    pixels: set[bytes] = set()
    for split, expected in counts.items():
        source = open_source(DataConfig(), split)
        assert source.class_names == names
        records = [source[index] for index in range(len(source))]
        assert np.bincount([record.labels[0] for record in records]).tolist() == expected
        files = {record.key.split("(")[1] for record in records}
        assert not files & seen
        seen |= files
        pixels |= {record.encoded for record in records}
        assert all(
            record.key.split("(")[1].startswith(names[record.labels[0]]) for record in records
        )
        assert {min(decode(record.encoded).shape[:2]) for record in records[::20]} == {128}
    assert len(seen) == len(pixels) == 2521


def test_the_embedded_set_stays_small() -> None:
    folder = pathlib.Path(data.__file__).parent / "embedded"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 10e6
    assert "Gary Thung" in (folder / "trashnet/LICENSE").read_text()
