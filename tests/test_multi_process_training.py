"""A run is the same run with any number of devices and processes, and may change it under way."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest
import tiny
from chaos import runs
from processes import Processes

from effnetv2_jax.config.experiment import CheckpointConfig, LogConfig
from effnetv2_jax.data import Unreadable, open_source
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train.feed import TrainingData, host_batches
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model

Dtype = Literal["float32", "float64"]

STEPS = 30
"""Of two stages; a checkpoint every 5."""
TOLERANCE = 1e-9
"""Of parameters in float64, relative to the largest of the same leaf."""
FLOAT32_TOLERANCE = 0.03
"""Of all parameters together in float32, where 30 steps make a hundredth of the rounding of one."""
SMALL = 1e-4
"""Leaves without larger values, such as biases before another BatchNorm, hold but rounding."""


def launch(workdir: Path, *, processes: int = 1, devices: int = 1, dtype: Dtype) -> Processes:
    # At RandAugment's 5 no grey level is rounded. At others, compiled as quickly as here, some are
    # rounded differently for another number of examples per device.
    stages = [dataclasses.replace(stage, randaugment_magnitude=5.0) for stage in tiny.STAGES]
    # In float32 each device has whole and large groups, or rounding soon makes another run of it.
    batch, bn_group = (tiny.BATCH, None) if dtype == "float64" else (64, 8)
    experiment = tiny.experiment(
        epochs=STEPS * batch / 2016,
        batch_size=batch,
        stages=tuple(stages),
        model=dataclasses.replace(tiny.MODEL, dtype=dtype, bn_group=bn_group),
        checkpoint=CheckpointConfig(every_steps=5),
        log=LogConfig(every_steps=1),
    )
    variables = {"JAX_ENABLE_X64": str(int(dtype == "float64"))}
    return runs.launch(
        experiment, workdir, processes=processes, devices=devices, variables=variables
    )


def kill_at(step: int, started: Processes, workdir: Path) -> None:
    while started.run() and not any(line["step"] >= step for line in metrics(workdir)):
        time.sleep(0.01)
    assert started.run(), started.outputs()
    started.kill()


def metrics(workdir: Path) -> list[dict[str, Any]]:
    return runs.deterministic(runs.metrics(workdir))


def parameters(workdir: Path, dtype: Dtype) -> dict[str, np.ndarray]:
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        experiment = tiny.experiment(model=dataclasses.replace(tiny.MODEL, dtype=dtype))
        model, optimizer = build_model(experiment, 6), make_optimizer(experiment)
        state = abstract_state(experiment, model, optimizer, make_mesh(jax.devices()[:1]))
        with Checkpoints(workdir / "checkpoints", None) as checkpoints:
            assert checkpoints.latest_step() == STEPS
            found = checkpoints.restore_parts({"params": state.params, "ema": state.ema})
        return tiny.leaves_by_name(found)
    finally:
        jax.config.update("jax_enable_x64", False)


def assert_same_run(workdir: Path, expected: Path, dtype: Dtype) -> None:
    found, wanted = parameters(workdir, dtype), parameters(expected, dtype)
    if dtype == "float32":
        difference, size = (
            sum(np.square(part, dtype=np.float64).sum() for part in parts)
            for parts in ([found[name] - wanted[name] for name in found], wanted.values())
        )
        assert (difference / size) ** 0.5 < FLOAT32_TOLERANCE
        return
    off = {
        name: np.abs(value - wanted[name]).max() / max(np.abs(wanted[name]).max(), SMALL)
        for name, value in found.items()
    }
    worst = max(off, key=off.__getitem__)
    assert off[worst] <= TOLERANCE, f"{worst} is off by {off[worst]:.1e}"

    lines, wanted_lines = metrics(workdir), metrics(expected)
    assert [line["step"] for line in lines] == [*range(1, STEPS + 1), STEPS]
    for line, wanted_line in zip(lines, wanted_lines, strict=True):
        assert line.keys() == wanted_line.keys()
        for name in ("train/loss", "eval/raw_loss", "eval/ema_loss"):
            if name in line:
                assert line[name] == pytest.approx(wanted_line[name], rel=1e-3)
    counts = [f"eval/{weights}_{which}" for weights in ("raw", "ema") for which in ("top1", "top5")]
    for name in (*counts, "eval/examples", "eval/unreadable"):
        assert lines[-1][name] == wanted_lines[-1][name]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dtype], Path]:
    """Makes the run of one process with one device, by its dtype."""
    made: dict[str, Path] = {}

    def make(dtype: Dtype) -> Path:
        if dtype not in made:
            made[dtype] = tmp_path_factory.mktemp("undisturbed") / "run"
            launch(made[dtype], dtype=dtype).finish()
        return made[dtype]

    return make


@pytest.mark.parametrize(
    ("processes", "devices", "dtype"),
    [
        pytest.param(2, 2, "float64", marks=pytest.mark.slow),
        *(
            pytest.param(*case, "float64", marks=pytest.mark.long)
            for case in ((1, 2), (2, 8), (4, 4))
        ),
        pytest.param(1, 8, "float32", marks=pytest.mark.long),
    ],
)
def test_processes_and_devices_do_not_change_a_run(
    processes: int,
    devices: int,
    dtype: Dtype,
    undisturbed: Callable[[Dtype], Path],
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "run"
    outputs = launch(workdir, processes=processes, devices=devices, dtype=dtype).finish()
    assert_same_run(workdir, undisturbed(dtype), dtype)

    # Only the first process tells of it.
    assert f"done: {STEPS} steps" in outputs[0]
    for output in outputs[1:]:
        assert "step" not in output
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    only_here = {path.name for path in workdir.iterdir()}
    assert only_here == {path.name for path in undisturbed(dtype).iterdir()}


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        pytest.param((2, 2), (1, 1), marks=pytest.mark.slow),
        pytest.param((1, 8), (1, 2), marks=pytest.mark.long),
    ],
)
def test_a_run_may_end_with_other_processes_and_devices_than_it_began_with(
    begun: tuple[int, int],
    ended: tuple[int, int],
    undisturbed: Callable[[Dtype], Path],
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "run"
    dtype: Dtype = "float64"
    (processes, devices), step = begun, STEPS // 2 - 2
    kill_at(step, launch(workdir, processes=processes, devices=devices, dtype=dtype), workdir)
    (processes, devices) = ended
    (output, *_) = launch(workdir, processes=processes, devices=devices, dtype=dtype).finish()
    assert "continuing" in output
    assert_same_run(workdir, undisturbed(dtype), dtype)


ROWS = """
import sys
import jax
import numpy as np
from effnetv2_jax.parallel import startup
startup.start("on")
from test_multi_process_training import batches
arrays = {f"{step}_{name}": array for step, rows in batches() for name, array in rows.items()}
np.savez(f"{sys.argv[1]}/{jax.process_index()}.npz", **arrays)
"""


def batches() -> list[tuple[int, dict[str, np.ndarray]]]:
    """This process's rows of the batches of two stages, by step."""
    experiment = tiny.experiment(steps=6)
    source = open_source(experiment.data, "train")
    data = TrainingData(
        source=source,
        config=experiment.data,
        preprocessing=squashed(40),
        plan=experiment.plan(len(source)),
        seed=experiment.seed,
        unreadable=Unreadable(0),
    )
    with contextlib.closing(host_batches(data, start=0)) as coming:
        return [(step, batch) for step, _, batch in coming]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_processes_rows_are_the_batches_of_one(processes: int, tmp_path: Path) -> None:
    Processes("-c", ROWS, str(tmp_path), folder=tmp_path, count=processes).finish()
    rows = [np.load(tmp_path / f"{index}.npz") for index in range(processes)]
    expected = batches()
    assert len(expected) == 6
    for step, batch in expected:
        for name, array in batch.items():
            parts = [part[f"{step}_{name}"] for part in rows]
            assert {len(part) for part in parts} == {tiny.BATCH // processes}
            np.testing.assert_array_equal(np.concatenate(parts), array)
            assert parts[0].dtype == array.dtype
