"""Tar files as WebDataset writes them."""

import gzip
import io
import json
import pathlib
import tarfile
from typing import Any

import pytest

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, DecodeError
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data
from effnetv2_jax.data.sources.open import open_source, open_sources


def write(path: pathlib.Path, *files: tuple[str, bytes | str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def shards(root: pathlib.Path, split: str = "train", count: int = 2, start: int = 0) -> None:
    for shard in range(count):
        files: list[tuple[str, bytes | str]] = []
        for n in range(start + shard * 5, start + shard * 5 + 5):
            files += [(f"{n:05}.jpg", f"picture {n}"), (f"{n:05}.cls", f"{n % 3}\n")]
            files += [(f"{n:05}.json", json.dumps({"id": n, "kind": ["a", f"b{n % 2}"]}))]
        write(root / f"set-{split}-{shard:04}.tar", *files)


def data(root: pathlib.Path, **fields: Any) -> DataConfig:
    return DataConfig(source="webdataset", path=str(root), **fields)


def refused(root: pathlib.Path, **fields: Any) -> str:
    with pytest.raises(DataError) as error:
        open_sources(data(root, **fields))
    return str(error.value)


def test_several_shards_in_any_order(tmp_path: pathlib.Path) -> None:
    shards(tmp_path)
    shards(tmp_path, "validation", count=1, start=10)
    train, evaluation = open_sources(data(tmp_path))
    assert (len(train), len(evaluation)) == (10, 5)
    for n in (7, 0, 9, 4):
        assert train[n].encoded == f"picture {n}".encode()
        assert train[n].labels == (n % 3,)
    assert evaluation[0].encoded == b"picture 10"
    assert train[7].key == f"{tmp_path}/set-train-0001.tar:00007.jpg"
    assert train.class_names == ("0", "1", "2")
    said = describe_data({TRAINING: train, EVALUATION: evaluation})
    assert "3 tar files; pictures in jpg; labels in cls" in said
    places = open_source(data(tmp_path, num_classes=10), "train")
    assert places.class_names == tuple(map(str, range(10)))


def test_labels_in_json(tmp_path: pathlib.Path) -> None:
    shards(tmp_path)
    fields: dict[str, Any] = {"label_key": "json:kind", "max_labels": 2, "train_split": "all"}
    source = open_source(data(tmp_path, **fields), "train")
    assert source.class_names == ("a", "b0", "b1")
    assert [source[n].labels for n in range(3)] == [(0, 1), (0, 2), (0, 1)]
    assert "has 2 labels, more than data.max_labels=1" in refused(tmp_path, label_key="json:kind")
    assert "00000.json:color cannot be read: KeyError('color')" in refused(
        tmp_path, label_key="json:color"
    )


def test_held_out_and_patterns(tmp_path: pathlib.Path) -> None:
    files: list[tuple[str, bytes | str]] = []
    for n in range(60):
        files += [(f"x/{n}.png", "p"), (f"x/{n}.cls", "ab"[n % 2])]
    write(tmp_path / "pets.tar", *files)
    train, evaluation = open_sources(data(tmp_path / "pets.tar"))
    assert (len(train), len(evaluation)) == (54, 6)
    assert evaluation.name == f"{tmp_path}/pets.tar (test: held out)"
    assert train[0].key.startswith(f"{tmp_path}/pets.tar:x/")
    for split, part in (("one", files[:20]), ("two", files[20:])):
        write(tmp_path / "set" / split / "0.tar", *part)
    named = data(tmp_path / "set", files="{split}/*.tar", train_split="one", eval_split="two")
    assert [len(source) for source in open_sources(named)] == [10, 50]


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a/train.tar", ("1.jpg", "p"), ("1.cls", "0"), ("2.jpg", "p"))
    assert "train.tar: 2 has no label; it has jpg. Set data.label_key" in refused(tmp_path / "a")
    write(tmp_path / "b/train.tar", ("1.jpg", "p"), ("1.mask.png", "p"), ("1.cls", "0"))
    assert "1 has several pictures; it has jpg, mask.png, cls" in refused(tmp_path / "b")
    assert len(open_source(data(tmp_path / "b", picture_key="jpg", max_labels=2), "train")) == 1
    (tmp_path / "c").mkdir()
    (tmp_path / "c/train.tar").write_bytes(gzip.compress(b"tar"))
    assert "is compressed, which leaves no random access" in refused(tmp_path / "c")
    (tmp_path / "c/train.tar").write_bytes(b"no tar" * 200)
    assert "cannot be read as a tar file" in refused(tmp_path / "c")
    (tmp_path / "c/train.tar").unlink()
    assert "has no .tar files; it holds nothing" in refused(tmp_path / "c")
    shards(tmp_path / "d")
    write(tmp_path / "d/rest.tar", ("1.jpg", "p"), ("1.cls", "0"))
    assert "whose names tell no split, such as rest.tar" in refused(tmp_path / "d")


def test_a_file_that_becomes_shorter(tmp_path: pathlib.Path) -> None:
    shards(tmp_path, count=1)
    source = open_source(data(tmp_path, train_split="all"), "train")
    with (tmp_path / "set-train-0000.tar").open("r+b") as stream:
        stream.truncate(1500)
    assert source[0].encoded == b"picture 0"
    with pytest.raises(DecodeError, match=r"00004.jpg: the file ends within it"):
        source[4]
