"""A working directory belongs to one run."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from typing import Any, Literal

import pytest
import tiny
from etils import epath

import effnetv2_jax
from effnetv2_jax.config import CheckpointConfig, Cosine, DataConfig, Experiment
from effnetv2_jax.data import open_source
from effnetv2_jax.outputs.workdir import (
    WorkdirError,
    began_class_names,
    check_workdir,
    find_run,
    open_workdir,
    read_class_names,
    read_config,
    read_data_fingerprint,
    read_preprocessing,
)
from effnetv2_jax.preprocessing import cropped
from effnetv2_jax.progressive import Stage, linear

EMBEDDED = pathlib.Path(effnetv2_jax.__file__).parent / "data" / "embedded"
CLASSES = ("glass", "metal", "paper")
PREPROCESSING = cropped(224)


def config(**changes: Any) -> dict[str, Any]:
    stages = linear(2, first=Stage(image_size=128), last=Stage(image_size=160))
    required: dict[str, Any] = {
        "model": tiny.MODEL,
        "optimizer": tiny.OPTIMIZER,
        "schedule": Cosine(),
    }
    return dataclasses.asdict(Experiment(**required, stages=stages, **changes))


def test_first_start_writes_config_and_classes(tmp_path: pathlib.Path) -> None:
    workdir = open_workdir(tmp_path / "runs" / "first", config(), CLASSES, PREPROCESSING)
    assert read_preprocessing(workdir) == PREPROCESSING
    text = (workdir / "config.json").read_text()
    assert json.loads(text)["batch_size"] == 4096
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads((workdir / "classes.json").read_text()) == list(CLASSES)
    assert sorted(path.name for path in workdir.iterdir()) == [
        "classes.json",
        "config.json",
        "preprocessing.json",
    ]
    assert read_class_names(workdir) == began_class_names(workdir) == CLASSES
    assert began_class_names(tmp_path / "runs" / "second") is None
    assert read_config(workdir)["data"]["crop_area"] == [0.05, 1.0]


def test_later_starts_may_change_only_what_does_not_alter_the_training(
    tmp_path: pathlib.Path,
) -> None:
    open_workdir(tmp_path, config(), CLASSES, PREPROCESSING)
    before = (tmp_path / "config.json").read_bytes()
    open_workdir(tmp_path, config(), CLASSES, PREPROCESSING)
    moved = config(data=DataConfig(path="/elsewhere"), checkpoint=CheckpointConfig(every_steps=7))
    open_workdir(tmp_path, moved, CLASSES, PREPROCESSING)
    assert (tmp_path / "config.json").read_bytes() == before

    with pytest.raises(WorkdirError) as caught:
        open_workdir(tmp_path, config(seed=3, epochs=10.0), CLASSES, PREPROCESSING)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "seed: 0 -> 3" in message
    assert "epochs: 350.0 -> 10.0" in message
    assert "--workdir" in message


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("glass", "paper", "metal"), "class 1: 'metal' -> 'paper'"),
        (("glass", "metal"), "3 -> 2 classes"),
    ],
)
def test_other_classes_are_an_error(
    tmp_path: pathlib.Path, classes: tuple[str, ...], message: str
) -> None:
    open_workdir(tmp_path, config(), CLASSES, PREPROCESSING)
    with pytest.raises(WorkdirError, match=message):
        open_workdir(tmp_path, config(), classes, PREPROCESSING)


def test_other_training_data_are_an_error(tmp_path: pathlib.Path) -> None:
    def start(fingerprint: str | None) -> None:
        open_workdir(tmp_path, config(), CLASSES, PREPROCESSING, data_fingerprint=fingerprint)

    start(None)  # As runs began before their data were recorded.
    assert read_data_fingerprint(tmp_path) is None
    start("12ab")
    start("12ab")
    start(None)
    assert json.loads((tmp_path / "data.json").read_text()) == {"train": "12ab"}
    with pytest.raises(WorkdirError) as caught:
        start("34cd")
    assert f"the training data changed since the run in {tmp_path} began" in str(caught.value)
    assert f"--config.init=workdir:{tmp_path}" in str(caught.value)
    with pytest.raises(WorkdirError, match="training data changed"):
        check_workdir(tmp_path, config(), CLASSES, data_fingerprint="34cd")
    assert read_data_fingerprint(tmp_path) == "12ab"


def fingerprint(source: Literal["folder", "tfds"], path: pathlib.Path) -> str:
    data = DataConfig(source=source, name="trashnet", path=str(path))
    return open_source(data, "train").fingerprint


def test_the_same_data_may_lie_elsewhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for index in range(8):
        path = one / "folder" / CLASSES[index % 3] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copytree(EMBEDDED, one / "tfds")
    shutil.copytree(one, two)
    for source in ("folder", "tfds"):
        here = fingerprint(source, one / source)
        assert fingerprint(source, two / source) == here
        monkeypatch.chdir(one)
        assert fingerprint(source, pathlib.Path(source)) == here
    (two / "folder" / "glass" / "0.jpg").rename(two / "folder" / "glass" / "00.jpg")
    assert fingerprint("folder", two / "folder") != fingerprint("folder", one / "folder")


def test_only_checks_when_told_not_to_write(tmp_path: pathlib.Path) -> None:
    new = tmp_path / "new"
    open_workdir(new, config(), CLASSES, PREPROCESSING, data_fingerprint="12ab", write=False)
    assert not (tmp_path / "new").exists()
    open_workdir(tmp_path, config(), CLASSES, PREPROCESSING)
    with pytest.raises(WorkdirError, match="seed"):
        open_workdir(tmp_path, config(seed=1), CLASSES, PREPROCESSING, write=False)


def test_a_start_killed_between_the_two_files_is_completed(tmp_path: pathlib.Path) -> None:
    open_workdir(tmp_path, config(), CLASSES, PREPROCESSING)
    (tmp_path / "config.json").unlink()
    open_workdir(tmp_path, config(seed=1), CLASSES, PREPROCESSING)
    assert read_config(tmp_path)["seed"] == 1


def test_a_file_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WorkdirError, match=rf"cannot use {path} as working directory"):
            open_workdir(path, config(), CLASSES, PREPROCESSING)


UNPRIVILEGED = """
    import os, sys
    from effnetv2_jax.outputs.workdir import WorkdirError, open_workdir
    from effnetv2_jax.preprocessing import squashed
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        open_workdir(sys.argv[1], {"seed": 0}, ["a"], squashed(32))
    except WorkdirError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_an_unwritable_directory(tmp_path: pathlib.Path) -> None:
    unwritable = tmp_path / "unwritable"
    unwritable.mkdir(mode=0o555)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    command = [sys.executable, "-c", textwrap.dedent(UNPRIVILEGED), str(unwritable)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"cannot use {unwritable} as working directory" in done.stdout
    assert "Permission denied" in done.stdout


def test_files_that_are_missing_or_broken(tmp_path: pathlib.Path) -> None:
    with pytest.raises(WorkdirError, match=r"config\.json is missing"):
        read_config(tmp_path)
    (tmp_path / "classes.json").write_text('["glass", "me')
    with pytest.raises(WorkdirError, match=r"classes\.json is not valid JSON"):
        read_class_names(tmp_path)
    for text in ('["12ab"]', '{"eval": "12ab"}'):
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(WorkdirError, match=r"data\.json makes no sense"):
            read_data_fingerprint(tmp_path)


@pytest.mark.parametrize(
    ("text", "checkpoint"),
    [("", "last"), ("@best", "best"), ("@last", "last"), ("@1234", 1234)],
)
def test_a_checkpoint_of_a_run_can_be_named(
    text: str, checkpoint: object, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "12").mkdir(parents=True)
    for name in (f"{run}{text}", f"workdir:{run}{text}", f"file:{run}{text}"):
        assert find_run(name) == (epath.Path(run), checkpoint)
    assert find_run(f"gs://bucket/run{text}") == (epath.Path("gs://bucket/run"), checkpoint)
    assert find_run(f"{run}/checkpoints/12") == (epath.Path(run), 12)
    assert find_run(f"hub:me/run{text}") is None
    # What there is under the whole name is meant itself.
    (tmp_path / "odd@best" / "checkpoints").mkdir(parents=True)
    assert find_run(f"{tmp_path}/odd@best") == (epath.Path(tmp_path / "odd@best"), "last")
