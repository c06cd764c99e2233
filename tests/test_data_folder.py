"""Folders of pictures, as people really lay them out."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import unicodedata
from typing import Any

import pytest
from PIL import Image

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, Source, open_source
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data
from effnetv2_jax.data.sources.folder import FolderSource
from effnetv2_jax.data.sources.open import Purpose, open_sources
from effnetv2_jax.data.sources.picture_folder import PictureFolder


def make(root: pathlib.Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PNG")


def opened(root: pathlib.Path, split: Purpose = "train", **fields: Any) -> Source:
    return open_source(DataConfig(source="folder", path=str(root), **fields), split)


def opened_folder(root: pathlib.Path, **fields: Any) -> FolderSource:
    source = opened(root, "eval", **fields)
    assert isinstance(source, FolderSource)
    return source


def listed(source: Source, root: pathlib.Path) -> list[str]:
    keys = [pathlib.Path(source[index].key) for index in range(len(source))]
    return [key.relative_to(root).as_posix() for key in keys]


def many(*classes: str, count: int = 20) -> list[str]:
    return [f"{name}/{index:03}.png" for name in classes for index in range(count)]


def test_train_and_val_folders(tmp_path: pathlib.Path) -> None:
    make(tmp_path, "train/cat/1.png", "train/ant/1.png", "train/dog/1.png", "val/dog/2.png")
    train, validation = opened(tmp_path), opened(tmp_path, "eval")
    assert train.class_names == validation.class_names == ("ant", "cat", "dog")
    assert listed(train, tmp_path) == ["train/ant/1.png", "train/cat/1.png", "train/dog/1.png"]
    assert listed(validation, tmp_path) == ["val/dog/2.png"]
    assert validation[0].labels == (2,)
    assert validation[0].encoded == (tmp_path / "val/dog/2.png").read_bytes()
    assert train.exif


@pytest.mark.parametrize("name", ["validation", "valid", "test"])
def test_other_names_of_val(tmp_path: pathlib.Path, name: str) -> None:
    make(tmp_path, "train/a/1.png", "train/b/1.png", f"{name}/a/2.png")
    assert listed(opened(tmp_path, "eval"), tmp_path) == [f"{name}/a/2.png"]


@pytest.mark.parametrize("split", ["val", "validation", "valid", "test"])
def test_what_is_there_stands_in_for_a_validation_split(tmp_path: pathlib.Path, split: str) -> None:
    make(tmp_path / "apart", "train/a/1.png", "train/b/1.png", "valid/a/2.png")
    assert listed(opened(tmp_path / "apart", "eval", eval_split=split), tmp_path / "apart") == [
        "valid/a/2.png"
    ]
    make(tmp_path / "together", *many("a", "b"))
    assert len(opened(tmp_path / "together", "eval", eval_split=split)) == 4


def test_the_folder_of_a_splits_name_comes_first_and_the_name_says_which(
    tmp_path: pathlib.Path,
) -> None:
    make(tmp_path, *many("train/a", "train/b"), "val/a/1.png", *many("Test/a", count=9))
    counts = {"val": 1, "validation": 1, "test": 9, "Test": 9, "testing": 9, "train": 40, "all": 50}
    titles = {"validation": ": val/", "test": ": Test/", "testing": ": Test/"}
    for split, count in counts.items():
        source = opened(tmp_path, "eval", eval_split=split)
        assert (len(source), source.class_names) == (count, ("a", "b"))
        assert source.name == f"{tmp_path} ({split}{titles.get(split, '')})"
    shutil.rmtree(tmp_path / "Test")
    assert opened(tmp_path, "eval", eval_split="test").name == f"{tmp_path} (test: val/)"


def test_all_pictures_of_folders_without_splits_can_be_evaluated(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", "b", "c", count=10))
    whole = opened_folder(tmp_path, eval_split="all")
    assert (len(whole), whole.available, whole.class_counts) == (30, 30, (10, 10, 10))
    held_out = opened_folder(tmp_path, eval_split="test")
    assert (len(held_out), held_out.available) == (3, 30)
    assert held_out.name == f"{tmp_path} (test: held out)"
    part = opened_folder(tmp_path, eval_split="all[:50%]")
    assert (len(part), part.available) == (15, 30)


def test_a_folder_of_validation_pictures_is_evaluated_and_not_trained_on(
    tmp_path: pathlib.Path,
) -> None:
    make(tmp_path, *many("val/a", "val/b"))
    for split in ("val", "test", "all"):
        assert len(opened(tmp_path, "eval", eval_split=split)) == 40
    with pytest.raises(DataError, match=r"holds only val/.*evaluated.*but not trained on"):
        opened(tmp_path)


def test_a_split_without_class_folders_is_not_replaced(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("train/a", "train/b"), "test/1.png")
    for split in ("val", "test"):
        with pytest.raises(DataError, match=rf"test holds no .*path={tmp_path}/train holds"):
            opened(tmp_path, "eval", eval_split=split)
    make(tmp_path, "val/a/1.png")
    assert len(opened(tmp_path, "eval", eval_split="val")) == 1
    with pytest.raises(DataError, match="test holds no pictures in class folders"):
        opened(tmp_path, "eval", eval_split="test")


def test_what_could_be_splits_or_classes_is_stated(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("one/a", "one/b", "two/a", "two/b", count=4))
    with pytest.raises(DataError, match="hold folders of the same names"):
        opened(tmp_path)
    stated = DataConfig(
        source="folder", path=str(tmp_path), train_split="one", eval_split="two[:3]"
    )
    train, evaluation = open_sources(stated)
    assert train.class_names == evaluation.class_names == ("a", "b")
    assert (len(train), len(evaluation)) == (8, 3)
    assert opened(tmp_path, layout="classes").class_names == ("one", "two")


def test_classes_are_numbers_in_the_order_of_numbers(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("10", "9", "0", "02", count=3))
    assert opened(tmp_path).class_names == ("0", "02", "9", "10")
    make(tmp_path, *many("1a", count=3))
    assert opened(tmp_path).class_names == ("0", "02", "10", "1a", "9")


def test_classes_keep_the_order_that_a_run_began_with(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("10", "9", "0", count=3))
    data = DataConfig(source="folder", path=str(tmp_path), train_split="all", eval_split="val")
    before = ("0", "10", "9")  # In alphabetical order.
    digest = hashlib.sha256(repr(list(before)).encode())
    digest.update("".join(f"{name}\n" for name in many(*before, count=3)).encode())
    for source in open_sources(data, began_with=before):
        assert source.class_names == before
        for index in range(len(source)):
            key = pathlib.Path(source[index].key)
            assert before[source[index].labels[0]] == key.parent.name
    assert open_sources(data, began_with=before)[0].fingerprint == digest.hexdigest()[:16]
    # A run of other classes is refused elsewhere, with what differs.
    assert open_sources(data, began_with=("0", "10"))[0].class_names == ("0", "9", "10")


def test_a_name_is_one_class_however_its_accents_are_written(tmp_path: pathlib.Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, *many(f"train/{composed}", "train/b"), *many(f"val/{decomposed}", count=3))
    validation = opened_folder(tmp_path, eval_split="val")
    assert (validation.class_names, validation.class_counts) == (("b", composed), (0, 3))
    train, _ = open_sources(
        DataConfig(source="folder", path=str(tmp_path)), began_with=(decomposed, "b")
    )
    assert train.class_names == (decomposed, "b")


def test_classes_that_are_known_already(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("b", "d", count=2))
    data = DataConfig(source="folder", path=str(tmp_path), eval_split="all")
    source = open_source(data, "eval", class_names=("d", "c", "b"))
    assert [source[index].labels for index in range(4)] == [(2,), (2,), (0,), (0,)]
    with pytest.raises(DataError, match=r"has classes that are not known: d$"):
        open_source(data, "eval", class_names=("c", "b"))


@pytest.mark.parametrize("name", [b"caf\xe9", b" cat", b"new\nline"])
def test_odd_names_of_classes_are_kept_apart(tmp_path: pathlib.Path, name: bytes) -> None:
    make(tmp_path, *many(os.fsdecode(name), "cat"))
    assert sorted(opened(tmp_path).class_names) == sorted([os.fsdecode(name), "cat"])


def test_pictures_that_cannot_be_read_here_are_named(tmp_path: pathlib.Path) -> None:
    make(tmp_path, "a/1.png", "b/1.png")
    make(tmp_path, "c/1.png")
    (tmp_path / "c/1.png").rename(tmp_path / "c/1.cr2")
    with pytest.raises(DataError, match=r"without pictures in .*: c \(there are 1 \.cr2\)"):
        opened(tmp_path)
    (tmp_path / "pictures.zip").write_bytes(b"")
    with pytest.raises(DataError, match="unpack it first"):
        opened(tmp_path / "pictures.zip")


def test_examples_of_the_same_class(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", count=3), *many("b", count=5))
    for split in ("all", "all[:6]"):
        source = opened_folder(tmp_path, eval_split=split)
        labels = [source[index].labels for index in range(len(source))]
        for index, label in enumerate(labels):
            same = [other for other, its in enumerate(labels) if its == label]
            assert list(source.same_class(index)) == same


def test_a_part_of_the_training_pictures_can_be_evaluated_on(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("train/a", "train/b"), "val/a/1.png")
    train = opened(tmp_path, train_split="train[10:]")
    held_out = opened(tmp_path, "eval", eval_split="train[:10]")
    assert (len(train), len(held_out)) == (30, 10)
    files = [*listed(train, tmp_path), *listed(held_out, tmp_path)]
    assert sorted(files) == sorted(many("train/a", "train/b"))


def test_a_slice_is_a_random_sample_that_stays(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("train/a", "train/b", "train/c", count=100), "val/a/1.png")
    source = opened(tmp_path, train_split="train[:20%]")
    first = listed(source, tmp_path)
    assert len(first) == 60
    assert all(5 < sum(f"/{label}/" in name for name in first) < 40 for label in "abc")
    assert first != sorted(first)
    assert source.class_names == opened(tmp_path, train_split="train[:1]").class_names
    assert len({source.fingerprint, opened(tmp_path).fingerprint}) == 2
    make(tmp_path, "train/a/new.png")
    assert len({*first, *listed(opened(tmp_path, train_split="train[:60]"), tmp_path)}) <= 61


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "no split 'trian'; there are train and val"),
        ("train+val", r"'train\+val' is not understood"),
        ("train[:0]", r"'train\[:0\]' is empty"),
        ("val[:2]", r"'val\[:2\]' reaches beyond the 1 examples"),
    ],
)
def test_splits_that_do_not_exist(tmp_path: pathlib.Path, split: str, message: str) -> None:
    make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, train_split=split)


def test_nothing_need_be_held_out(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", "b"))
    assert not PictureFolder(str(tmp_path)).has_validation
    assert len(FolderSource(str(tmp_path), "train", validation_share=0)) == 40


def test_what_is_found_in_a_class_folder(tmp_path: pathlib.Path) -> None:
    make(
        tmp_path,
        "a/1.JPG",
        "a/2.jpeg",
        "a/deep/er/3.webp",
        "a/.hidden.png",
        "a/.thumbnails/4.png",
        "a/notes.txt",
        "b/5.TIFF",
        ".git/6.png",
        "lying-about.png",
    )
    source = opened(tmp_path, validation_share=0.01)
    everything = listed(source, tmp_path) + listed(opened(tmp_path, "eval"), tmp_path)
    assert sorted(everything) == ["a/1.JPG", "a/2.jpeg", "a/deep/er/3.webp", "b/5.TIFF"]
    assert source.class_names == ("a", "b")


def test_linked_class_folders(tmp_path: pathlib.Path) -> None:
    make(tmp_path / "elsewhere", "1.png", "2.png")
    make(tmp_path / "data", "a/1.png", "a/2.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    assert len(opened(tmp_path / "data")) + len(opened(tmp_path / "data", "eval")) == 4


def test_hold_out_is_stratified_disjoint_and_complete(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", "b"), "c/1.png", "d/1.png", "d/2.png")
    train, held_out = opened(tmp_path), opened(tmp_path, "eval")
    assert train.class_names == held_out.class_names == ("a", "b", "c", "d")
    files = [listed(train, tmp_path), listed(held_out, tmp_path)]
    assert not set(files[0]) & set(files[1])
    assert len(files[0]) + len(files[1]) == 43
    counts = [sum(name.startswith(label) for name in files[1]) for label in "abcd"]
    assert counts == [2, 2, 0, 1]


def test_hold_out_follows_the_share_and_hardly_moves_as_data_grow(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", "b"))
    before = set(listed(opened(tmp_path, "eval", validation_share=0.25), tmp_path))
    assert len(before) == 10
    make(tmp_path, "a/new.png", *many("c"))
    after = set(listed(opened(tmp_path, "eval", validation_share=0.25), tmp_path))
    assert len(before & after) >= 9


def test_hold_out_belongs_to_the_data_wherever_they_lie(tmp_path: pathlib.Path) -> None:
    make(tmp_path / "one", *many("a", "b"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = opened(tmp_path / "one", "eval"), opened(tmp_path / "two", "eval")
    assert listed(one, tmp_path / "one") == listed(two, tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != opened(tmp_path / "one").fingerprint
    make(tmp_path / "two", *many("a", count=40))
    assert one.fingerprint != opened(tmp_path / "two", "eval").fingerprint


def test_a_lone_train_folder_is_split(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("train/a", "train/b"))
    assert opened(tmp_path, "eval").class_names == ("a", "b")
    assert len(opened(tmp_path, "eval")) == 4


def test_a_class_may_be_called_train(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("car", "train"))
    assert opened(tmp_path).class_names == ("car", "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no pictures in class folders"),
        (["a.png", "b.png"], "no pictures in class folders"),
        (["a/1.png", "a/2.png"], "the single class 'a'"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/z/1.png"], "lacks: z"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val holds no pictures"),
        (["a/1.png", "b/1.png", "c/.hidden.png"], "without pictures in .*: c"),
        (["a/1.png", "b/1.png"], "too few pictures to hold any out"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: pathlib.Path, names: list[str], message: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, "eval")


def test_no_such_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: there is no folder .*nowhere"):
        opened(tmp_path / "nowhere")


def test_stated_numbers_are_checked(tmp_path: pathlib.Path) -> None:
    make(tmp_path, *many("a", "b"))
    with pytest.raises(DataError, match=r"has 2 classes, but data\.num_classes is 3"):
        opened(tmp_path, num_classes=3)
    with pytest.raises(DataError, match=r"36 examples, but data\.num_train_examples is 40"):
        opened(tmp_path, num_train_examples=40)
    assert len(opened(tmp_path, "eval", num_classes=2, num_train_examples=36)) == 4


def test_flat_pictures_with_a_list_of_their_labels(tmp_path: pathlib.Path) -> None:
    """As Tiny ImageNet and ImageNet come."""
    make(tmp_path, *many("train/n02/images", "train/n01/images"))
    make(tmp_path, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    listing = tmp_path / "val/val_annotations.txt"
    listing.write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    data = DataConfig(source="folder", path=str(tmp_path), eval_split="val")
    train, evaluation = open_sources(data)
    assert len(train) == 40
    assert [evaluation[n].labels for n in range(2)] == [(1,), (0,)]
    assert evaluation[0].key == f"{tmp_path}/val/images/val_0.JPEG"
    said = describe_data({TRAINING: train, EVALUATION: evaluation})
    assert any("val_annotations.txt is read as Tiny ImageNet's list" in line for line in said)
    listing.rename(tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text("val_0.JPEG 1\nval_1.JPEG 0\n")
    fields = {"labels": "val.txt", "pictures": "val/images", "num_classes": 2}
    stated = dataclasses.replace(data, **fields, eval_split="val[:1]")  # type: ignore[arg-type]
    _, evaluation = open_sources(stated)
    names = [pathlib.Path(evaluation[0].key).name, train.class_names[evaluation[0].labels[0]]]
    assert names in (["val_0.JPEG", "n02"], ["val_1.JPEG", "n01"])
    with pytest.raises(DataError, match="row 1 has 1, row 2 has 0"):
        open_sources(dataclasses.replace(stated, num_classes=None, eval_split="val"))
