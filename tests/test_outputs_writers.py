"""Metrics files: every finished line survives, and a run that goes back leaves no doubles."""

import datetime
import io
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from tensorboardX.proto import event_pb2

from effnetv2_jax.config.experiment import LogConfig
from effnetv2_jax.outputs.progress import Progress, Status, clock
from effnetv2_jax.outputs.workdir import WorkdirError, open_workdir
from effnetv2_jax.outputs.writers import METRICS, MetricsLog, Writers, read_log
from effnetv2_jax.preprocessing import squashed

JSONL = LogConfig(tensorboard=False)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def without_time(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines, each of which has to say when it was written."""
    found = lines(path)
    for line in found:
        written = datetime.datetime.fromisoformat(line.pop("time"))
        assert abs(datetime.datetime.now(datetime.UTC) - written) < datetime.timedelta(minutes=5)
    return found


def test_lines_are_strict_json_with_exact_numbers(tmp_path: pathlib.Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", step=0)
    log.write(1, loss=0.1 + 0.2, float32=np.float32(0.1), jax=jnp.float32(1.5), count=np.int64(3))
    log.write(2, loss=math.nan, norm=jnp.float32(math.inf), low=-math.inf)
    first, second = lines(tmp_path / "metrics.jsonl")
    assert first == {
        "step": 1,
        "loss": 0.30000000000000004,
        "float32": float(np.float32(0.1)),
        "jax": 1.5,
        "count": 3,
    }
    assert second == {"step": 2, "loss": None, "norm": None, "low": None}


def test_continuing_drops_later_lines_and_a_torn_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 10, "a": 1}\n\xff\0\n{"step": 20, "a": 2}\n{"step": 30, "a": 3}\n{"step": 4'
    )
    log = MetricsLog(path, step=20)
    log.write(25, a=5)
    log.write(30, a=6)
    log.cut_back(25)
    log.write(30, a=7)
    assert [(line["step"], line["a"]) for line in lines(path)] == [
        (10, 1),
        (20, 2),
        (25, 5),
        (30, 7),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_an_evaluation_that_will_be_repeated_is_dropped(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path, JSONL, step=0) as writers:
        for step in (1, 2):
            writers.write(step, "train", {"loss": 1.0})
            writers.write(step, "eval", {"top1": 0.5})
    for evaluated in (True, False):
        with Writers(tmp_path, JSONL, step=2, evaluated=evaluated):
            lines = read_log(tmp_path / METRICS)
        assert [line["step"] for line in lines] == [1, 1, 2, 2][: 3 + evaluated]
        assert "train/loss" in lines[2]


def test_starting_over_forgets_a_run_killed_before_its_first_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    with Writers(tmp_path, JSONL, step=0) as writers:
        writers.write(5, "train", {"loss": 1.0})
    with Writers(tmp_path, JSONL, step=0) as writers:
        writers.write(7, "train", {"loss": 2.0})
    assert without_time(tmp_path / "metrics.jsonl") == [{"step": 7, "train/loss": 2.0}]


WRITE_FOREVER = """
    import itertools, pathlib, sys
    from effnetv2_jax.outputs.writers import MetricsLog

    log = MetricsLog(pathlib.Path(sys.argv[1]), step=0)
    for step in itertools.count(1):
        log.write(step, loss=1 / step)
        print(step, flush=True)
"""


def test_a_kill_loses_no_finished_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(WRITE_FOREVER), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        finished = max([50, *map(int, process.stdout.read().split())])
    MetricsLog(path, step=finished)
    assert [line["step"] for line in lines(path)] == list(range(1, finished + 1))


def shown_by_tensorboard(directory: pathlib.Path) -> dict[str, dict[int, float]]:
    """Reads event files as TensorBoard does: a session's start purges what it repeats."""
    shown: dict[str, dict[int, float]] = {}
    for file in sorted(directory.iterdir()):
        data = io.BytesIO(file.read_bytes())
        while header := data.read(12):
            event = event_pb2.Event.FromString(data.read(int.from_bytes(header[:8], "little")))
            data.read(4)
            if event.HasField("session_log"):
                assert event.session_log.status == event_pb2.SessionLog.START
                for name, points in shown.items():
                    shown[name] = {s: v for s, v in points.items() if s < event.step}
            for value in event.summary.value:
                points = shown.setdefault(value.tag, {})
                assert event.step not in points, "the curve is doubled"
                points[event.step] = value.simple_value
    return shown


def test_tensorboard_shows_each_step_once(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path, LogConfig(), step=0) as writers:
        for step in (1, 2, 3):
            writers.write(step, "train", {"loss": float(step)})
        writers.write(3, "eval", {"top1": jnp.float32(0.5), "ema_top1": 0.25})
    with Writers(tmp_path, LogConfig(), step=2) as writers:
        writers.write(3, "train", {"loss": 30.0})
        writers.cut_back(2)
        writers.write(3, "train", {"loss": 300.0})
        writers.write(4, "train", {"loss": 400.0})
    assert shown_by_tensorboard(tmp_path / "tensorboard") == {
        "train/loss": {1: 1.0, 2: 2.0, 3: 300.0, 4: 400.0},
        "eval/top1": {},
        "eval/ema_top1": {},
    }
    assert without_time(tmp_path / "metrics.jsonl") == [
        {"step": 1, "train/loss": 1.0},
        {"step": 2, "train/loss": 2.0},
        {"step": 3, "train/loss": 300.0},
        {"step": 4, "train/loss": 400.0},
    ]


def test_without_tensorboard_and_disabled(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path / "quiet", LogConfig(), step=0, enabled=False) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.event("start", step=0)
        writers.flush()
        writers.cut_back(0)
    assert not (tmp_path / "quiet").exists()
    with Writers(tmp_path, JSONL, step=0) as writers:
        writers.write(1, "train", {"loss": 1.0})
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_notes_go_into_the_log_alone(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path, LogConfig(), step=0, epoch_of=lambda step: step / 3) as writers:
        writers.write(1, "eval", {"top1": 0.5}, params_sha256="ab", spent={"total": 1.5})
    assert without_time(tmp_path / "metrics.jsonl") == [
        {
            "step": 1,
            "epoch": 0.3333,
            "eval/top1": 0.5,
            "params_sha256": "ab",
            "spent": {"total": 1.5},
        }
    ]
    assert shown_by_tensorboard(tmp_path / "tensorboard") == {"eval/top1": {1: 0.5}}


def test_metrics_are_scalars(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path, JSONL, step=0) as writers, pytest.raises((TypeError, ValueError)):
        writers.write(1, "train", {"loss": jnp.zeros(2)})


def test_events_stay(tmp_path: pathlib.Path) -> None:
    for step in (0, 4):
        with Writers(tmp_path, JSONL, step=step) as writers:
            writers.event("start", step=step)
            writers.event("diverged", step=jnp.int32(9), loss=jnp.float32(math.nan))
            writers.cut_back(0)
            assert len(lines(tmp_path / "events.jsonl")) == (2 if step == 0 else 4)
    found = lines(tmp_path / "events.jsonl")
    for event in found:
        time = datetime.datetime.fromisoformat(event.pop("time"))
        assert time.utcoffset() == datetime.timedelta(0)
        assert time.microsecond == 0
        assert abs(datetime.datetime.now(datetime.UTC) - time) < datetime.timedelta(minutes=1)
    assert found == [
        {"event": "start", "step": 0},
        {"event": "diverged", "step": 9, "loss": None},
        {"event": "start", "step": 4},
        {"event": "diverged", "step": 9, "loss": None},
    ]


def test_fields_of_events_are_json(tmp_path: pathlib.Path) -> None:
    fields = {"name": "é\n", "none": None, "yes": True, "nested": {"many": (1, np.float64(2.5))}}
    with Writers(tmp_path, JSONL, step=0) as writers:
        writers.event("start", step=0, **fields, infinite=[math.inf])
    (event,) = lines(tmp_path / "events.jsonl")
    assert event["name"] == "é\n"
    assert event["none"] is None
    assert event["yes"] is True
    assert event["nested"] == {"many": [1, 2.5]}
    assert event["infinite"] == [None]


def test_a_torn_event_spoils_no_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "start", "step": 0}\n{"event": "preem\xff')
    with Writers(tmp_path, JSONL, step=0) as writers:
        writers.event("start", step=3)
        writers.event("start", step=6)
    assert path.read_bytes().splitlines()[1] == b'{"event": "preem\xff'
    assert [event["step"] for event in read_log(path)] == [0, 3, 6]
    assert read_log(tmp_path / "metrics.jsonl") == []


FILL = """
    import json, pathlib, subprocess, sys
    from effnetv2_jax.config.experiment import LogConfig
    from effnetv2_jax.outputs.workdir import WorkdirError
    from effnetv2_jax.outputs.writers import Writers, read_log

    # A disk of our own, which ends with this process.
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", sys.argv[1]]
    if subprocess.run(mount, capture_output=True).returncode:
        print("cannot mount")
        sys.exit()
    workdir = pathlib.Path(sys.argv[1])
    quiet, errors = LogConfig(tensorboard=False), []
    with Writers(workdir, quiet, step=0) as writers:
        writers.event("start", step=0)
        for step in range(1, 11):
            writers.write(step, "train", {"loss": 0.1})
    try:
        with (workdir / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1000)):
                pass
    except OSError:
        pass
    try:
        with Writers(workdir, quiet, step=10) as writers:
            for step in range(11, 1000):
                writers.write(step, "train", {"loss": 0.1})
    except WorkdirError as error:
        errors.append(str(error))
    torn = not (workdir / "metrics.jsonl").read_bytes().endswith(b"\\n")
    try:
        Writers(workdir, quiet, step=10)
    except WorkdirError as error:
        errors.append(str(error))
    (workdir / "ballast").unlink()
    with Writers(workdir, quiet, step=10) as writers:
        writers.write(12, "train", {"loss": 0.1})
        writers.event("start", step=12)
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    found = {
        "errors": errors,
        "torn": torn,
        "metrics": [line["step"] for line in metrics],
        "events": [event["step"] for event in read_log(workdir / "events.jsonl")],
    }
    print(json.dumps(found))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a small disk of its own")
def test_a_full_disk(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FILL), str(tmp_path)]
    # So that anyone may mount the disk.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "cannot mount" in done.stdout:
        pytest.skip("this system lets nobody mount a disk")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["torn"], "the test is to tear a line"
    assert len(found["errors"]) == 2
    for error in found["errors"]:
        assert error.startswith(f"cannot write {tmp_path}/metrics.jsonl: No space left on device")
    assert found["metrics"] == [*range(1, 11), 12]
    assert found["events"] == [0, 12]


SPENT = """
    import resource, sys
    from effnetv2_jax.config.experiment import LogConfig
    from effnetv2_jax.outputs.writers import Writers

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for ends in (lambda: None, lambda: 1 / 0):
        try:
            with Writers(sys.argv[1], LogConfig(), step=0) as writers:
                writers.write(1, "train", {"loss": 1.0})
                # From here on no file may grow.
                resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
                ends()
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_closing_hides_no_other_error(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SPENT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    full = f"cannot write {tmp_path}/tensorboard: File too large"
    first, second = done.stdout.splitlines()
    assert first.startswith(f"WorkdirError: {full}")
    assert second == "ZeroDivisionError: division by zero"
    assert done.stderr.count(full) == 1, "a warning beside the other error"


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_files_that_cannot_be_written_are_named(tmp_path: pathlib.Path) -> None:
    with Writers(tmp_path, JSONL, step=0) as writers:
        for name in ("metrics.jsonl", "events.jsonl"):
            (tmp_path / name).symlink_to("/dev/full")
        full = "No space left on device; when that is mended, the same command continues"
        with pytest.raises(WorkdirError, match=f"cannot write {tmp_path}/metrics.jsonl: {full}"):
            writers.write(1, "train", {"loss": 1.0})
        with pytest.raises(WorkdirError, match=f"cannot write {tmp_path}/events.jsonl: {full}"):
            writers.event("start", step=1)


def test_a_workdir_that_vanished(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    with Writers(workdir, JSONL, step=0) as writers:
        writers.write(1, "train", {"loss": 1.0})
        shutil.rmtree(workdir)
        with pytest.raises(WorkdirError, match=r"metrics\.jsonl: No such file or directory"):
            writers.write(2, "train", {"loss": 1.0})
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match="cannot write"):
        Writers(tmp_path / "file", JSONL, step=0)


def test_a_remote_directory_gets_whole_files(remote: epath.Path) -> None:
    with Writers(remote, LogConfig(), step=0) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write(2, "train", {"loss": 2.0})
        writers.flush()
        assert len((remote / "metrics.jsonl").read_text().splitlines()) == 2
        writers.event("start", step=0)
        writers.write(3, "train", {"loss": 2.0})
        assert [event["step"] for event in read_log(remote / "events.jsonl")] == [0]
        assert len(read_log(remote / "metrics.jsonl")) == 2, "they wait for a flush"
    with Writers(remote, LogConfig(), step=1) as writers:
        writers.event("start", step=1)
        writers.write(3, "train", {"loss": 3.0})
    text = (remote / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 3]
    assert [event["step"] for event in read_log(remote / "events.jsonl")] == [0, 1]
    assert len(list((remote / "tensorboard").iterdir())) == 2


def test_a_remote_workdir(remote: epath.Path) -> None:
    for _ in range(2):
        open_workdir(remote, {"seed": 0}, ["glass"], squashed(32))
    with pytest.raises(WorkdirError, match="seed: 0 -> 1"):
        open_workdir(remote, {"seed": 1}, ["glass"], squashed(32))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STATUS = Status(
    step=50,
    total_steps=1000,
    stage=0,
    num_stages=4,
    image_size=128,
    images_per_second=1234.5,
    loss=1.23456,
    learning_rate=0.016,
    seconds_left=3725.0,
)


def test_progress_elsewhere_is_plain_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    progress.show(STATUS)
    progress.message("eval: top1 0.5")
    progress.close()
    assert stream.getvalue() == (
        "stage 1/4 128 px | step 50/1000 | 1234 images/s"
        " | loss 1.2346 | lr 1.60e-02 | ETA 1:02:05\n"
        "eval: top1 0.5\n"
    )


def screen(written: str) -> list[str]:
    """What a terminal shows: a carriage return starts to overwrite its line."""
    shown = []
    for line in written.split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        shown.append(cells.rstrip())
    return shown


def test_progress_on_a_terminal_overwrites_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    progress = Progress(stream=stream)
    longer = Status(**{**vars(STATUS), "learning_rate": 0.5, "total_steps": 10_000_000})
    for status in (longer, STATUS):
        progress.show(status)
    assert screen(stream.getvalue()) == [str(STATUS)]
    progress.message("saved")
    progress.show(STATUS)
    progress.close()
    assert screen(stream.getvalue()) == ["saved", str(STATUS), ""]


def test_progress_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    Progress(stream=stream).show(STATUS)
    assert screen(stream.getvalue()) == [str(STATUS)[:39].rstrip()]


def test_progress_disabled() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, enabled=False)
    progress.show(STATUS)
    progress.message("saved")
    progress.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3599.4, "0:59:59"), (360_000, "100:00:00")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
