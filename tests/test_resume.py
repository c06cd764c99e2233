"""A run that is killed and started again ends with the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest

TESTS = Path(__file__).parent
STEPS = 20
"""Of two stages; a checkpoint every 4."""


def launch(workdir: Path, *, devices: int) -> subprocess.Popen[str]:
    config = workdir.with_suffix(".py")
    config.write_text(
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "import tiny\n"
        "from effnetv2_jax.experiment import CheckpointConfig, to_config_dict\n"
        "def get_config():\n"
        f"    checkpoint = CheckpointConfig(every_steps=4)\n"
        f"    return to_config_dict(tiny.experiment(steps={STEPS}, checkpoint=checkpoint))\n"
    )
    arguments = [f"--config={config}", f"--workdir={workdir}"]
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles faster
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "PYTHONPATH": str(TESTS.parent),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "effnetv2_jax.main", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workdir: Path, *, devices: int) -> list[dict[str, Any]]:
    process = launch(workdir, devices=devices)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return metrics(workdir)


def kill_at(step: int, workdir: Path, *, devices: int) -> None:
    process = launch(workdir, devices=devices)
    while process.poll() is None and not any(m["step"] >= step for m in metrics(workdir)):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()


def metrics(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    whole = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in whole if line.endswith("\n")]


def deterministic(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "train/images_per_second"} for line in lines]


@pytest.mark.parametrize("devices", [1, 8])
def test_killed_runs_end_as_undisturbed_ones(devices: int, tmp_path: Path) -> None:
    undisturbed = finish(tmp_path / "undisturbed", devices=devices)
    assert [line["step"] for line in undisturbed] == [*range(1, STEPS + 1), STEPS]
    assert {"params_sha256", "eval/ema_top1", "eval/raw_top1"} <= undisturbed[-1].keys()

    killed = tmp_path / "killed"
    for step in (6, STEPS // 2, STEPS - 3):  # in stage 1, at the boundary, in the last stage
        kill_at(step, killed, devices=devices)
    resumed = finish(killed, devices=devices)
    assert resumed[-1]["params_sha256"] == undisturbed[-1]["params_sha256"]
    assert deterministic(resumed) == deterministic(undisturbed)

    # Started once more, it is complete and stays as it is.
    assert finish(killed, devices=devices) == resumed
