"""Which folders are classes and which are splits, by names and contents alone."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_jax.data import DataError
from effnetv2_jax.data.sources.folder_layout import class_folders, find_layout
from effnetv2_jax.data.sources.folder_tree import Folder
from effnetv2_jax.data.sources.split_names import role_of

Tree = dict[str, Any]
"""Folders by name: what is in them, or how many pictures."""

ABC: Tree = {"a": 1, "b": 1, "c": 1}


def build(tree: Tree | int, name: str = "pictures") -> Folder:
    folder = Folder(name)
    if isinstance(tree, int):
        folder.pictures = [f"{number}.jpg" for number in range(tree)]
    else:
        folder.folders = [build(tree[inner], inner) for inner in sorted(tree)]
    return folder


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("train Training TRAIN train_set trainset training-data TrainImages imgs_train", "train"),
        ("Train Data|train2017|images.train|train_224px|trainval|split_train|trn", "train"),
        ("val VALID validation_set dev Eval val2017 imgs_val validation-images", "val"),
        ("test Testing TEST_SET testset test_images imgs_test Tests tst", "test"),
        ("trains trainer cat part_one test_tube invalid devil evaluations tested dataset 7", None),
        ("train_test", None),
    ],
)
def test_names_of_splits(names: str, role: str | None) -> None:
    for name in names.split("|" if "|" in names else None):
        assert role_of(name) == role, name


@pytest.mark.parametrize(
    ("tree", "splits"),
    [
        ({"Training": ABC, "Testing": ABC}, {"Testing": "test", "Training": "train"}),
        ({"TRAIN": ABC, "VALID": {"a": 1}}, {"TRAIN": "train", "VALID": "val"}),
        ({"training_set": ABC, "test_set": ABC}, {"test_set": "test", "training_set": "train"}),
        ({"imgs_train": ABC, "imgs_val": ABC}, {"imgs_train": "train", "imgs_val": "val"}),
        ({"Train Data": ABC}, {"Train Data": "train"}),
        ({"train": ABC, "val": ABC, "samples": 3}, {"train": "train", "val": "val"}),
        ({"train": ABC, "annotations": 0}, {"train": "train"}),
        ({"val": ABC}, {"val": "val"}),
        ({"test": ABC, "val": ABC}, {"test": "test", "val": "val"}),
        ({"train": ABC, "test": 5}, {"train": "train"}),
        ({"train": 5, "test": ABC}, {"test": "test"}),
        (ABC, {}),
        ({"car": 3, "train": 3}, {}),
        ({"valid": 3, "invalid": 3}, {}),
        ({"cat": {"indoor": 1, "outdoor": 1}, "dog": 2}, {}),
        ({"cat": {"images": 1}, "dog": {"images": 2}}, {}),
        ({"beaker": 3, "test_tube": 3}, {}),
        ({"animals": {"cat": 1, "dog": 1}, "vehicles": {"car": 1, "train": 1}}, {}),
        ({f"person{number}": {"left": 1, "right": 1} for number in range(12)}, {}),
    ],
)
def test_what_is_clear_is_taken(tree: Tree, splits: dict[str, str]) -> None:
    assert find_layout(build(tree), "PICTURES").splits == splits


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"part_one": ABC, "part_two": ABC}, "hold folders of the same names (a/, b/, c/)"),
        ({"part_one": ABC, "part_two": ABC}, "data.train_split=part_one and data.eval_split=part_"),
        ({"one": ABC, "two": {"a": 9, "b": 9}}, "data.train_split=two and data.eval_split=one;"),
        ({f"fold{number}": ABC for number in range(5)}, "the same names"),
        ({"one": ABC, "two": {"a": 1, "b": 1}, "loose": 2}, "the same names"),
        ({"train": ABC, "samples": 3}, "train/, which looks like a split"),
        ({"train": ABC, "samples": 3}, "set data.path to PICTURES/train"),
        ({"test": ABC, "control": 3}, "test/, which looks like a split"),
        ({"train": 3, "test": 3}, "no pictures in class folders"),
        ({"train": 3}, "no pictures in class folders"),
        ({"dataset": {"train": ABC, "val": ABC}}, "set data.path to PICTURES/dataset"),
        ({"cat": {"train": 1, "test": 1}, "dog": {"train": 1}}, "have to be outermost"),
        ({"cats_train": 1, "cats_test": 1, "dogs_train": 1}, "differ only by split"),
        ({"TestCats": 1, "TrainCats": 1}, "differ only by split"),
        ({"dataset": ABC, "empty": 0}, "set data.path to PICTURES/dataset"),
        ({"images": 3, "labels": 3}, "kinds of files"),
        ({"train": {"images": 3, "masks": 3}, "val": {"images": 1}}, "kinds of files"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(tree: Tree, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        find_layout(build(tree), "PICTURES")


def test_what_is_doubtful_is_said() -> None:
    (note,) = find_layout(build({"car": 3, "train": 3}), "PICTURES").notes
    assert note == "train/ is taken for a class, not for a split"
    (note,) = find_layout(build({"train": ABC, "val": ABC, "samples": 3}), "PICTURES").notes
    assert note == "not read: samples/ beside train/, val/"
    (note,) = find_layout(build({"train": ABC, "val": ABC, "valid": ABC}), "PICTURES").notes
    assert note == "val/, valid/ are read only where a split is called so"
    shifted = {"one": ABC, "two": {"b": 1, "c": 1, "d": 1}}
    (note,) = find_layout(build(shifted), "PICTURES").notes
    assert "hold folders of the same names (b/, c/); the outer ones are taken" in note


SPLITS = "train Train TRAINING train_set val valid Validation test Testing dev imgs_test"
WORDS = st.sampled_from([*SPLITS.split(), "cats_train", "cats_test", "samples", "images", *ABC])
NAMES = WORDS | st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6)
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        st.integers(0, 2), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
    ),
    max_size=5,
)


@given(TREES)
@settings(deadline=None)
def test_any_tree_gives_classes_or_a_refusal_but_no_splits_as_classes(tree: Tree) -> None:
    folder = build(tree)
    try:
        layout = find_layout(folder, "PICTURES")
    except DataError:
        return
    if layout.splits:
        assert all(role_of(name) == role for name, role in layout.splits.items())
        inside = {inner.name: class_folders(inner) for inner in folder.folders}
        assert all(inside[name] for name in layout.splits)
        return
    classes = class_folders(folder)
    named_as_splits = [name for name in classes if role_of(name)]
    # A class may be called so beside others, and then it is said.
    assert not named_as_splits or any("is taken for a class" in note for note in layout.notes)
    assert len({*map(role_of, named_as_splits)}) <= 1
    assert not classes or {*classes} > {*named_as_splits}
