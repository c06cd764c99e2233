"""A run says how it goes from its first second to its last, and what it waits for."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import tiny
from etils import epath

from effnetv2_jax.config.experiment import LogConfig
from effnetv2_jax.outputs.progress import LINE_SECONDS, LIVE_SECONDS, TICK_SECONDS, Progress
from effnetv2_jax.outputs.writers import METRICS, Writers, read_log
from effnetv2_jax.train import compile_times
from effnetv2_jax.train.closing import closing
from effnetv2_jax.train.opening import describe_plan
from effnetv2_jax.train.step_log import StepLog


class Clock:
    """Stands still until it is moved."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_after_ten_seconds_of_silence_it_says_what_is_waited_for() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    progress.tick()  # Nothing is waited for.
    progress.waiting("compiling stage 1/4")
    for _ in range(35):
        clock.seconds += 1
        progress.tick()
    assert stream.getvalue().splitlines() == [
        "... compiling stage 1/4: 0:00:10 so far",
        "... compiling stage 1/4: 0:00:20 so far",
        "... compiling stage 1/4: 0:00:30 so far",
    ]
    progress.message("something else")
    clock.seconds += TICK_SECONDS - 1
    progress.tick()
    progress.waiting("step 1")
    clock.seconds += 2
    progress.tick()
    assert stream.getvalue().splitlines()[3:] == ["something else"]


def test_other_processes_are_silent() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock, enabled=False)
    progress.waiting("step 1")
    clock.seconds += 100
    progress.tick()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("stream", "seconds"), [(io.StringIO(), LINE_SECONDS), (Terminal(), LIVE_SECONDS)]
)
def test_lines_come_by_time(stream: io.StringIO, seconds: float) -> None:
    clock = Clock()
    progress = Progress(stream=stream, clock=clock)
    assert progress.due
    progress.show(status())
    clock.seconds += 0.9 * seconds
    assert not progress.due
    clock.seconds += 0.2 * seconds
    assert progress.due


def status() -> Any:
    from test_outputs_writers import STATUS

    return STATUS


def test_a_thread_ticks_until_the_end() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    with progress.ticking():
        progress.message("said")
    assert stream.getvalue() == "said\n"


def test_steps_are_shown_by_time_and_logged_by_number(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    plan = tiny.experiment(steps=12).plan(2016)
    progress = Progress(stream=stream, clock=clock)
    metrics = {"loss": jnp.float32(1.5)}
    with Writers(tmp_path, LogConfig(tensorboard=False), step=0) as writers:
        log = StepLog(plan, writers, progress, every_steps=4, besides=lambda done: 3600.0)
        assert log.seconds_left(0) is None
        for done in range(1, 13):
            planned = plan.stage_at(done - 1)
            log.step(done, planned, {"learning_rate": 0.1}, metrics)
            clock.seconds += 4
        log.flush()
        left = log.seconds_left(12)
    assert [row["step"] for row in read_log(tmp_path / METRICS)] == [4, 6, 8, 12]
    shown = [line.partition(" | step ")[2] for line in stream.getvalue().splitlines()]
    # The first of each stage, and then as soon as ten seconds are over; read one step late.
    assert [int(line.partition("/")[0]) for line in shown if line] == [1, 4, 7, 10]
    assert "stage 1/2 is done: 6 steps at 32 px, " in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].startswith("stage 2/2 is done: 6 steps at 40 px, ")
    assert left == pytest.approx(3600.0)
    assert "ETA 1:00:0" in stream.getvalue()


def test_compilations_are_expected_to_take_what_they_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = compile_times.expected("cpu net 32 px x 8", platform="cpu", arrays=50)
    assert first == pytest.approx(15.0)
    compile_times.record("cpu net 32 px x 8", 42.04)
    assert compile_times.expected("cpu net 32 px x 8", platform="cpu", arrays=50) == 42.0
    assert compile_times.expected("other", platform="cpu", arrays=50) == first
    (file,) = (tmp_path / "effnetv2_jax").iterdir()
    file.write_text("no JSON")
    assert compile_times.expected("cpu net 32 px x 8", platform="cpu", arrays=50) == first
    for number in range(300):
        compile_times.record(f"{number}", 1.0)
    assert len(file.read_text().split(",")) == 200
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # A file, which holds no folder.
    compile_times.record("cpu", 1.0)


def test_the_plan_shows_what_stages_use() -> None:
    plan = tiny.experiment(steps=8).plan(2016)
    title, head, *rows = describe_plan(plan, 0.5, 2016)
    assert title == "plan: 0.5 epochs, 8 steps"
    assert head.split()[:5] == ["stage", "steps", "epochs", "px", "batch"]
    assert "mixup alpha" in head
    assert "cutmix" not in head
    assert [row.split()[:2] for row in rows] == [["1/2", "4"], ["2/2", "4"]]


def test_the_last_word_explains_raw_and_averaged() -> None:
    workdir = epath.Path("runs/mine")
    spent = {"compiling": 25.0, "training": 74.9, "saving": 0.1, "total": 100.0}
    result = {"raw_top1": 0.5, "ema_top1": 0.625}
    both: dict[str, Any] = {
        "metric": "top1",
        "steps": 2772,
        "best": "best checkpoint: step 9",
        "spent": spent,
    }
    raw = "top-1: 50.00% (raw) is of the weights as the last step left them"
    lines = closing(workdir, result, decay=0.99, reports=True, **both)
    assert lines == [
        "done: 2,772 steps; this start took 0:01:40 (training 75%, compiling 25%)",
        f"{raw}, 62.50% (ema) of their moving average, which predict and exports use",
        "best checkpoint: step 9",
        "to read: runs/mine/report.html",
        "next: python -m effnetv2_jax.predict --weights=runs/mine PICTURES/",
    ]
    lines = closing(workdir, {"raw_top1": 0.5}, decay=None, reports=False, **both)
    assert lines[1] == raw
    assert lines[3] == "to read: runs/mine/metrics.jsonl"


FIRST = """
import sys
from effnetv2_jax import main
def run(command, progress):
    print("jax" in sys.modules, command.config_file, *command.changed)
    return 0
main.run = run
main.main(["main", "--config=configs/quickstart.py", "--config.epochs=2", "--workdir=runs/none"])
"""


def test_the_first_line_comes_before_jax() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False configs/quickstart.py epochs: 22.0 -> 2.0\n"
    assert ": configs/quickstart.py to runs/none; loading JAX\n" in done.stderr
