"""What is said of data before a run reads them."""

import pathlib
from typing import Any

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import open_source
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data, survey
from effnetv2_jax.data.sources.open import open_sources


def touch(root: pathlib.Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def many(folder: str, count: int) -> list[str]:
    return [f"{folder}/{number}.jpg" for number in range(count)]


def data_of(root: pathlib.Path, **fields: Any) -> DataConfig:
    return DataConfig(source="folder", path=str(root), **fields)


def report(root: pathlib.Path, **fields: Any) -> list[str]:
    train, evaluation = open_sources(data_of(root, **fields))
    return describe_data({TRAINING: train, EVALUATION: evaluation})


def test_of_folders_of_splits(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *many("train/a", 4), *many("train/b", 1), *many("train/c", 2))
    touch(tmp_path, *many("val/a", 3), *many("val/c", 1), *many("test/a", 5), *many("samples", 2))
    touch(tmp_path, "train/a/x.svg", "train/b/.x.jpg", "val/.DS_Store", "val/1.jpg", "labels.csv")
    assert report(tmp_path, eval_split="val") == [
        "3 classes: a, b, c",
        f"training: 7 of 7 pictures, {tmp_path} (train); rarest b (1); most frequent a (4)",
        f"evaluation: 4 of 4 pictures, {tmp_path} (val); rarest b (0); most frequent a (3)",
        "passed over: 2 hidden, 1 .csv, 1 .svg, 1 pictures outside of class folders",
        "splits that are not used: test/ (5)",
        "not read: samples/ beside test/, train/, val/",
        "note: classes with a single training picture: b",
        "note: classes without pictures for evaluation, 1 of 3: b",
    ]


def test_of_class_folders(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *(name for label in range(12) for name in many(str(label), 20)))
    held_out = f"{tmp_path} (test: held out)"
    assert report(tmp_path) == [
        "12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        f"training: 216 of 240 pictures, {tmp_path} (train); rarest 0 (18); most frequent 0 (18)",
        f"evaluation: 24 of 240 pictures, {held_out}; rarest 0 (2); most frequent 0 (2)",
    ]


def test_of_pictures_that_are_also_trained_on(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *many("a", 20), *many("b", 20))
    said = "note: 18 of the pictures for evaluation are also trained on"
    assert said in report(tmp_path, train_split="train", eval_split="train[:50%]")
    sliced = {"train_split": "train[50%:]", "eval_split": "train[:50%]"}
    assert "trained on" not in "".join(report(tmp_path, **sliced))


def test_of_names_that_resemble_each_other(tmp_path: pathlib.Path) -> None:
    touch(
        tmp_path,
        *(name for label in ("Cat", " cat", "new\nline", "dog") for name in many(label, 3)),
    )
    first, *_, last = report(tmp_path)
    assert first == "4 classes: ' cat', Cat, dog, 'new\\nline'"
    assert last == "note: classes whose names differ only in blanks, case or form: ' cat', 'Cat'"


def test_of_other_sources_and_of_evaluation_alone() -> None:
    lines = describe_data({EVALUATION: open_source(DataConfig(eval_split="test[:40]"), "eval")})
    assert lines == [
        "6 classes: cardboard, glass, metal, paper, plastic, trash",
        "evaluation: 40 of 505 pictures, trashnet/1.0.0 test[:40]",
    ]


def test_a_survey_lists_folders_only_for_numbers_that_are_not_stated(
    tmp_path: pathlib.Path,
) -> None:
    touch(tmp_path, *many("a", 20), *many("b", 20))
    found = survey(data_of(tmp_path))
    assert (found.examples, found.classes, found.report) == (36, 2, tuple(report(tmp_path)))
    stated = data_of(tmp_path / "nowhere", num_classes=3, num_train_examples=5)
    assert survey(stated) == (5, 3, (), None)
    assert survey(DataConfig())[:3] == (2016, 6, ())
