"""Sets that Hugging Face's library wrote (`huggingface/write.py`), read without it."""

import io
import json
import pathlib
import pickle
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, DecodeError, Source
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data
from effnetv2_jax.data.sources.open import open_source, open_sources

pa = pytest.importorskip("pyarrow", reason="reads Arrow files")
import pyarrow.parquet as pq  # noqa: E402

SETS = pathlib.Path(__file__).parent / "huggingface"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "effnetv2_jax/parquet"


def data(path: pathlib.Path | str, **fields: Any) -> DataConfig:
    return DataConfig(source="huggingface", path=str(SETS / path), **fields)


def values(source: Source) -> list[int]:
    """The red of every picture."""
    found = []
    for index in range(len(source)):
        with Image.open(io.BytesIO(source[index].encoded)) as picture:
            found.append(picture.convert("RGB").getpixel((0, 0))[0])  # type: ignore[index]
    return found


@pytest.mark.parametrize("name", ["splits", "parquet"])
def test_splits_and_classes_in_the_order_of_the_set(name: str) -> None:
    for _ in range(2):  # Parquet files: copied, and then from the cache.
        train, test = open_sources(data(name))
        assert train.class_names == test.class_names == ("dog", "cat", "owl")
        assert (values(train), values(test)) == ([*range(9)], [9, 10, 11])
        assert [train[n].labels for n in range(9)] == [(n % 3,) for n in range(9)]
    copy = pickle.loads(pickle.dumps(train))
    assert copy[8] == train[8]
    assert copy[8].key.endswith(":8.png")
    said = "\n".join(describe_data({TRAINING: train, EVALUATION: test}))
    assert "3 classes: dog, cat, owl" in said
    assert "pictures in image; labels in label, whose classes the set names" in said


def test_several_labels_and_text() -> None:
    tags = open_source(data("tags", max_labels=2, train_split="all"), "train")
    assert [tags[n].labels for n in range(6)] == [(1,), (0, 2), (), (1,), (0, 1), (2,)]
    text = open_source(data("tags", label_key="text", train_split="all"), "train")
    assert (text.class_names, text[1].labels) == (("n0", "n1"), (1,))
    train, held_out = open_sources(data("tags", label_key="text"))
    assert sorted(values(train) + values(held_out)) == [*range(6)]


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="row 1, column 'tags': it has 2 labels, more than"):
        open_source(data("tags"), "train")
    with pytest.raises(DataError, match=r"its columns are img, tags, text. Set data.picture_key"):
        open_source(data("tags", picture_key="image"), "train")
    with pytest.raises(DataError, match="has no split 'night'"):
        open_source(data("splits", train_split="night"), "train")
    with pytest.raises(DataError, match="there is no file or folder"):
        open_source(data("nothing"), "train")
    shutil.copytree(SETS / "splits", tmp_path / "splits")
    (tmp_path / "splits/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"1 of 2 files are missing: data-00001-of-00002.arrow"):
        open_source(data(tmp_path / "splits"), "train")
    (tmp_path / "splits/train/data-00001-of-00002.arrow").write_bytes(b"no Arrow")
    with pytest.raises(DataError, match="cannot be read"):
        open_source(data(tmp_path / "splits"), "train")


def parquet(path: pathlib.Path, labels: list[Any], kind: Any, names: list[str] | None) -> None:
    picture = (SETS.parent / "pictures/glass.jpg").read_bytes()
    fields = {"image": {"_type": "Image"}, "label": {"_type": "Value"}}
    if names:
        fields["label"] = {"_type": "ClassLabel", "names": names}  # type: ignore[dict-item]
    table = pa.table(
        {
            "image": pa.array([{"bytes": picture, "path": None}] * len(labels)),
            "label": pa.array(labels, kind),
        }
    )
    meta = {"huggingface": json.dumps({"info": {"features": fields}})}
    pq.write_table(table.replace_schema_metadata(meta), path)


def test_wrong_rows_are_named(tmp_path: pathlib.Path) -> None:
    parquet(tmp_path / "train.parquet", [0, 1, 2, -1] * 3, pa.int64(), ["a", "b", "c"])
    with pytest.raises(DataError) as error:
        open_source(data(tmp_path), "train")
    assert str(error.value) == (
        f"{tmp_path}/train.parquet: row 3, column 'label': -1 is none of the 3 classes, row 7, "
        "column 'label': -1 is none of the 3 classes, row 11, column 'label': -1 is none of the 3 "
        "classes"
    )
    parquet(tmp_path / "train.parquet", ["x", None], pa.string(), None)
    with pytest.raises(DataError, match="row 1, column 'label': it has no label"):
        open_source(data(tmp_path), "train")
    parquet(tmp_path / "train.parquet", [3, 4, 5], pa.int32(), None)
    assert open_source(data(tmp_path), "train").class_names == ("3", "4", "5")
    stated = open_source(data(tmp_path, num_classes=5, first_label=1), "train")
    assert [stated[n].labels for n in range(3)] == [(2,), (3,), (4,)]


def test_a_file_that_becomes_shorter_costs_the_pictures_that_are_gone(
    tmp_path: pathlib.Path,
) -> None:
    shutil.copytree(SETS / "tags", tmp_path / "tags")
    source = open_source(data(tmp_path / "tags", max_labels=2, train_split="all"), "train")
    (file,) = (tmp_path / "tags").glob("*.arrow")
    place = file.read_bytes().index(source[3].encoded)
    with file.open("r+b") as stream:
        stream.truncate(place + 5)
    assert [source[n].labels for n in range(3)] == [(1,), (0, 2), ()]
    with pytest.raises(DecodeError, match="the file ends within it"):
        source[3]
