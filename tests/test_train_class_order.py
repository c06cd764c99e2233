"""A run on a folder goes on with the order of classes that it began with."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny

from effnetv2_jax.config import DataConfig
from effnetv2_jax.data import open_source
from effnetv2_jax.outputs.workdir import WorkdirError, open_workdir
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train import run
from effnetv2_jax.train.run import open_run

NUMBERS = ("0", "2", "10")


class Reached(Exception):
    """The run has been found to be the same; its classes are the argument."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Folders with numbers for names."""

    def initial_model(experiment: Any, class_names: tuple[str, ...], workdir: Any) -> None:
        raise Reached(class_names)

    monkeypatch.setattr(run, "initial_model", initial_model)
    for name in NUMBERS:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "data" / name / f"{number}.jpg").touch()
    return dataclasses.replace(
        tiny.experiment().data, source="folder", path=str(tmp_path / "data"), eval_split="val"
    )


@pytest.mark.parametrize("began_with", [("0", "10", "2"), NUMBERS])
def test_it_stays(tmp_path: Path, data: DataConfig, began_with: tuple[str, ...]) -> None:
    experiment = tiny.experiment(data=data, epochs=2.0)
    open_workdir(
        tmp_path / "run",
        dataclasses.asdict(experiment),
        began_with,
        squashed(40),
        data_fingerprint=open_source(data, "train", class_names=began_with).fingerprint,
    )
    # What is evaluated may change.
    changed = dataclasses.replace(experiment, data=dataclasses.replace(data, eval_split="test"))
    with pytest.raises(Reached) as reached, open_run(changed, tmp_path / "run", None):
        pass
    assert reached.value.args == (began_with,)


def test_other_classes_are_refused(tmp_path: Path, data: DataConfig) -> None:
    experiment = tiny.experiment(data=data, epochs=2.0)
    open_workdir(tmp_path / "run", dataclasses.asdict(experiment), ("0", "10", "3"), squashed(40))
    with (
        pytest.raises(WorkdirError, match="class 1: '10' -> '2'"),
        open_run(experiment, tmp_path / "run", None),
    ):
        pass
