"""A run that is killed and started again ends with the same bits as one that was not."""

import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from chaos.runs import deterministic, last_metrics, launch, metrics

from effnetv2_jax.config.experiment import CheckpointConfig

STEPS = 20
EXPERIMENT = tiny.experiment(steps=STEPS, checkpoint=CheckpointConfig(every_steps=4))
"""Of two stages."""


def finish(workdir: Path, *, devices: int) -> list[dict[str, Any]]:
    launch(EXPERIMENT, workdir, devices=devices).finish()
    return metrics(workdir)


def kill_at(step: int, workdir: Path, *, devices: int) -> None:
    started = launch(EXPERIMENT, workdir, devices=devices)
    while started.run() and last_metrics(workdir)["step"] < step:
        time.sleep(0.002)
    assert started.run(), started.outputs()
    started.kill()


# In stage 1, at the boundary, in the last stage.
KILLS = (6, STEPS // 2, STEPS - 3)


@pytest.mark.parametrize(
    ("devices", "kills"),
    [
        pytest.param(1, KILLS, marks=pytest.mark.slow),
        pytest.param(8, KILLS, marks=pytest.mark.long),
    ],
)
def test_killed_runs_end_as_undisturbed_ones(
    devices: int, kills: tuple[int, ...], tmp_path: Path
) -> None:
    undisturbed = finish(tmp_path / "undisturbed", devices=devices)
    assert [line["step"] for line in undisturbed] == [*range(1, STEPS + 1), STEPS]
    assert {"params_sha256", "eval/ema_top1", "eval/raw_top1"} <= undisturbed[-1].keys()

    killed = tmp_path / "killed"
    for step in kills:
        kill_at(step, killed, devices=devices)
    resumed = finish(killed, devices=devices)
    assert resumed[-1]["params_sha256"] == undisturbed[-1]["params_sha256"]
    assert deterministic(resumed) == deterministic(undisturbed)

    # Started once more, it is complete and stays as it is.
    assert finish(killed, devices=devices) == resumed
