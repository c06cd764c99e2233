"""A run that is killed and preempted at all times ends with the bits of one that was not."""

import dataclasses
from pathlib import Path

import pytest

from chaos.disturb import disturb, planned
from chaos.four_stages import four_stages
from chaos.runs import deterministic, launch, metrics


def assert_same_run(workdir: Path, undisturbed: Path) -> None:
    found, wanted = metrics(workdir), metrics(undisturbed)
    assert found[-1]["params_sha256"] == wanted[-1]["params_sha256"]
    assert deterministic(found) == deterministic(wanted)


@pytest.mark.parametrize(
    ("steps", "every_steps", "kills", "terms", "processes", "decoders"),
    [
        pytest.param(1000, 12, 5, 5, 1, 0, marks=pytest.mark.long),
        pytest.param(60, 12, 1, 1, 2, 1, marks=pytest.mark.slow),
    ],
)
def test_a_disturbed_run_ends_as_an_undisturbed_one(
    steps: int,
    every_steps: int,
    kills: int,
    terms: int,
    processes: int,
    decoders: int,
    tmp_path: Path,
) -> None:
    experiment = four_stages(steps=steps, every_steps=every_steps)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    launch(experiment, undisturbed, processes=processes).finish()
    # Threads decode for the one, processes for the other.
    data = dataclasses.replace(experiment.data, processes=decoders)
    experiment = dataclasses.replace(experiment, data=data)
    disturbances = planned(experiment, kills=kills, terms=terms, seed=0, processes=processes)
    found = disturb(experiment, disturbed, disturbances, processes=processes)
    assert len(found.hits) == kills + terms
    assert_same_run(disturbed, undisturbed)
