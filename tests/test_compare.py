"""Two runs, told apart by what they leave in their working directories."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny
from etils import epath

from effnetv2_jax.compare import main
from effnetv2_jax.config.experiment import CheckpointConfig, DataConfig, LogConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.comparison import Difference, compare_runs
from effnetv2_jax.outputs.run_record import run_record
from effnetv2_jax.outputs.workdir import WorkdirError, open_workdir
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.preprocessing import squashed

CLASSES = ("glass", "metal", "paper")


def write_run(
    workdir: epath.PathLike,
    *,
    classes: Sequence[str] = CLASSES,
    fingerprint: str = "12ab",
    record: dict[str, Any] | None = None,
    starts: Sequence[int] = (0,),
    events: Sequence[tuple[str, int]] = (),
    loss: dict[int, float] | None = None,
    steps: int = 6,
    every_steps: int = 1,
    ema: float = 0.5,
    sha256: str | None = "ab" * 32,
    **fields: Any,
) -> None:
    """Leaves what a run of `steps` steps leaves, except for checkpoints."""
    config = dataclasses.asdict(tiny.experiment(**fields))
    open_workdir(workdir, config, classes, squashed(32), data_fingerprint=fingerprint)
    for start in starts:
        with Writers(workdir, LogConfig(tensorboard=False), step=start) as writers:
            writers.event("start", step=start, **(record or {}))
            for name, step in events:
                writers.event(name, step=step, message=f"{name}!")
            for step in range(start + every_steps, steps + 1, every_steps):
                metrics = {"loss": 1 / step, "top1": 0.25, "learning_rate": 0.1}
                metrics["loss"] = (loss or {}).get(step, metrics["loss"])
                metrics["images_per_second"] = float(os.urandom(1)[0])
                writers.write(step, "train", metrics)
            result = {"raw_top1": 0.25, "ema_top1": ema, "raw_loss": 1.5}
            notes = {} if sha256 is None else {"params_sha256": sha256}
            writers.write(steps, "eval", result, **notes)


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return tmp_path / "a", tmp_path / "b"


def told(differences: Sequence[Difference]) -> list[tuple[str, str]]:
    return [(difference.subject, str(difference)) for difference in differences]


def test_the_same(
    runs: tuple[pathlib.Path, pathlib.Path],
    mesh: jax.sharding.Mesh,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for run in runs:
        write_run(
            run, record=run_record(mesh, model=tiny.MODEL, train_data="12ab", eval_data="34cd")
        )
    assert compare_runs(*runs) == []
    assert main([str(run) for run in runs]) == 0
    text = capsys.readouterr().out
    assert f"A: {runs[0]}\nB: {runs[1]}\n" in text
    assert "starts: versions, devices, source: the same" in text
    assert "6 steps compared" in text
    assert re.search(r"step +raw_top1 A +raw_top1 B +ema_top1 A +ema_top1 B", text)
    assert re.search(r"6 +25.00% +25.00% +50.00% +50.00%", text)
    assert text.endswith("Both ended with the same parameters, by the same metrics.\n")


def test_made_in_other_ways(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"packages": {"jax": "0.10.2"}, "devices": {"cpu": 8}, "revision": "12"}
    a, b = runs
    sets = dataclasses.replace(tiny.experiment().evaluation, sets=("imagenet-v2",))
    write_run(a, record=record, data=DataConfig(source="embedded", path="/here"))
    write_run(
        b,
        record=record | {"devices": {"TPU v5e": 8}, "packages": {"jax": "0.10.3"}},
        data=DataConfig(source="folder", path="/there"),
        evaluation=sets,
        classes=("glass", "steel", "paper"),
        fingerprint="56ef",
        events=[("diverged", 3), ("rolled_back", 2)],
    )
    assert told(compare_runs(a, b)) == [
        ("config", "*data.path: '/here' -> '/there'"),
        ("config", "data.source: 'embedded' -> 'folder'"),
        ("config", "*evaluation.sets[0]: absent -> 'imagenet-v2'"),
        ("classes", "class 1: 'metal' -> 'steel'"),
        ("data", "data.train: 12ab -> 56ef"),
        ("starts", "packages.jax: 0.10.2 -> 0.10.3"),
        ("starts", "devices.cpu: 8 -> absent"),
        ("starts", "devices.TPU v5e: absent -> 8"),
        ("events", "diverged: absent -> 1 (3)"),
        ("events", "rolled_back: absent -> 1 (2)"),
    ]
    assert main([str(a), str(b)]) == 0, "what came out is the same"
    assert "  packages.jax: 0.10.2 -> 0.10.3\n" in capsys.readouterr().out
    write_run(a.parent / "c", classes=("glass", "metal"))
    assert ("classes", "number: 3 -> 2") in told(compare_runs(a, a.parent / "c"))


def test_a_start_with_something_else(runs: tuple[pathlib.Path, pathlib.Path]) -> None:
    a, b = runs
    for run in runs:
        write_run(run, record={"packages": {"jax": "1"}, "processes": 4})
    with Writers(b, LogConfig(tensorboard=False), step=6) as writers:
        writers.event("start", step=6, packages={"jax": "2"}, processes=4)
    assert told(compare_runs(a, b)) == [
        ("starts", "packages.jax: 1 -> 1, at the last start 2"),
        ("events", "start: 1 (0) -> 2 (0, 6)"),
    ]


def test_metrics_and_parameters(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    write_run(a, loss={5: 0.25})
    write_run(b, loss={4: 0.5, 5: float("nan")}, ema=0.75, sha256="cd" * 32)
    assert told(compare_runs(a, b)) == [
        ("training", "loss at step 4: 0.25 -> 0.5 (+0.25)"),
        ("evaluations", "ema_top1 at step 6: 0.5 -> 0.75 (+0.25)"),
        ("parameters", f"params_sha256: {'ab' * 32} -> {'cd' * 32}"),
    ]
    assert main([str(a), str(b)]) == 4
    text = capsys.readouterr().out
    assert re.search(r"6 +25.00% +25.00% +50.00% +75.00%", text)
    assert text.endswith("The results differ: training, evaluations, parameters.\n")


def test_a_loss_that_is_not_finite(runs: tuple[pathlib.Path, pathlib.Path]) -> None:
    a, b = runs
    write_run(a, loss={4: float("inf")})
    write_run(b)
    assert told(compare_runs(a, b)) == [("training", "loss at step 4: not finite -> 0.25")]


def test_steps_that_one_run_did_not_log(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    write_run(a)
    write_run(b, every_steps=3, log=LogConfig(every_steps=3, tensorboard=False, report=False))
    assert told(compare_runs(a, b)) == [("config", "*log.every_steps: 1 -> 3")]
    assert main([str(a), str(b)]) == 0
    assert "2 steps compared" in capsys.readouterr().out


def test_a_run_that_has_not_ended(runs: tuple[pathlib.Path, pathlib.Path]) -> None:
    for run in runs:
        write_run(run, sha256=None)
    (difference,) = compare_runs(*runs)
    assert difference.in_result
    assert str(difference).endswith("unknown, as it has not ended -> unknown, as it has not ended")
    assert main([str(run) for run in runs]) == 4


def test_runs_from_before_events(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    for run in runs:
        write_run(run)
        (run / "data.json").unlink()
    (b / "events.jsonl").unlink()
    assert told(compare_runs(b, a)) == [("events", "start: absent -> 1 (0)")]
    (a / "events.jsonl").unlink()
    assert compare_runs(a, b) == []
    assert main([str(a), str(b)]) == 0
    assert capsys.readouterr().out.count("not recorded") == 2


def test_torn_files_are_read_as_far_as_they_go(runs: tuple[pathlib.Path, pathlib.Path]) -> None:
    a, b = runs
    for run in runs:
        write_run(run)
    for name in ("metrics.jsonl", "events.jsonl"):
        with (b / name).open("a") as file:
            file.write('{"step": 7, "train/lo')
    assert compare_runs(a, b) == []


def test_no_runs_to_compare(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    write_run(a)
    assert main([str(a), str(b)]) == 1
    assert f"error: there is no directory {b}; name the --workdir of two" in capsys.readouterr().err
    b.mkdir()
    assert main([str(a), str(b)]) == 1
    assert f"{b}/config.json is missing; is {b} a run's --workdir?" in capsys.readouterr().err
    with pytest.raises(WorkdirError, match=r"config\.json is missing"):
        compare_runs(b, a)
    (a / "metrics.jsonl").write_text('{"train/loss": 1}\n')
    assert main([str(a), str(a)]) == 1
    assert "metrics.jsonl makes no sense" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([str(a)])
    assert ended.value.code == 2
    assert "RUN_B" in capsys.readouterr().err


def test_no_device_is_touched(runs: tuple[pathlib.Path, pathlib.Path]) -> None:
    for run in runs:
        write_run(run)
    command = [sys.executable, "-m", "effnetv2_jax.compare", *map(str, runs)]
    # With a platform that does not exist, JAX would fail.
    done = subprocess.run(
        command,
        env=os.environ | {"JAX_PLATFORMS": "none_such"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_remote_run(remote: epath.Path, tmp_path: pathlib.Path) -> None:
    write_run(remote)
    write_run(tmp_path, loss={2: 0.0})
    assert told(compare_runs(remote, tmp_path)) == [
        ("training", "loss at step 2: 0.5 -> 0.0 (-0.5)")
    ]
    with pytest.raises(WorkdirError, match="there is no directory s3://bucket/other"):
        compare_runs(remote, remote.parent / "other")


def test_as_far_as_checkpoints(
    runs: tuple[pathlib.Path, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    write_run(a)
    write_run(b, loss={5: 7.0}, sha256="cd" * 32)
    for run, last in ((a, 1.0), (b, 2.0)):
        with Checkpoints(run / "checkpoints", CheckpointConfig()) as checkpoints:
            checkpoints.save(3, {"params": jnp.ones(2)}, metrics={"top1": 0.9})
            checkpoints.save(6, {"params": jnp.full(2, last)}, metrics={"top1": 0.8})
    assert main([str(a), str(b)]) == 4
    assert main([f"{a}@best", f"{b}@3"]) == 0
    text = capsys.readouterr().out
    assert f"A: {a}@3" in text
    assert "3 steps compared" in text
    assert main([f"{a}@best", f"{b}@last"]) == 4
    assert main([f"{a}@6", str(b)]) == 4
    assert "params_sha256: CRC-32C" in capsys.readouterr().out
    assert main([f"{a}@5", str(b)]) == 1
    assert "no checkpoint of step 5" in capsys.readouterr().err
