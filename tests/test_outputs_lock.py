"""One working directory, one run: while it lives and no longer."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from etils import epath

from effnetv2_jax.outputs.lock import lock_workdir
from effnetv2_jax.outputs.workdir import WorkdirError

HOLD = """
    import os, subprocess, sys, time
    from etils import epath
    from effnetv2_jax.outputs.lock import lock_workdir

    with lock_workdir(epath.Path(sys.argv[1])):
        children = []
        if "exec" in sys.argv:
            children.append(subprocess.Popen(["sleep", "60"], close_fds=False).pid)
        if "fork" in sys.argv:
            started, start = os.pipe()
            children.append(os.fork())
            if not children[0]:
                os.write(start, b".")  # By now it has let go of what it inherited.
                time.sleep(60)
            os.read(started, 1)
        print(*children, flush=True)
        time.sleep(60)
"""


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Processes to end after the test."""
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        os.kill(number, signal.SIGKILL)


def hold(workdir: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(workdir), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("child", ["none", "exec", "fork"])
def test_a_live_run_holds_its_directory_and_a_killed_one_does_not(
    tmp_path: pathlib.Path, started: list[int], child: str
) -> None:
    workdir = tmp_path / "run"
    with hold(workdir, child) as process:
        assert process.stdout is not None
        started += map(int, process.stdout.readline().split())
        with (
            pytest.raises(WorkdirError) as caught,
            lock_workdir(epath.Path(workdir)),
        ):
            pass
        details = json.loads((workdir / ".lock").read_text())
        assert f"{workdir} is in use by process {process.pid} on " in str(caught.value)
        assert f"{details['host']} since {details['since']}; " in str(caught.value)
        process.kill()
        process.wait()
        with lock_workdir(epath.Path(workdir)):
            assert json.loads((workdir / ".lock").read_text())["pid"] == os.getpid()
            with (
                pytest.raises(WorkdirError, match=f"process {os.getpid()} "),
                lock_workdir(epath.Path(workdir)),
            ):
                pass
    with lock_workdir(epath.Path(workdir)):
        pass


def test_a_run_that_fails_unlocks(tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyError), lock_workdir(epath.Path(tmp_path)):
        raise KeyError
    with lock_workdir(epath.Path(tmp_path)):
        pass


def test_only_one_of_many_gets_the_directory(tmp_path: pathlib.Path) -> None:
    processes = [hold(tmp_path) for _ in range(3)]
    end = time.monotonic() + 60
    while sum(process.poll() is None for process in processes) > 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.communicate()


def test_a_directory_that_cannot_be_locked_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    workdir = epath.Path(tmp_path / "file" / "run")
    with (
        pytest.raises(WorkdirError, match=f"cannot lock {workdir}: .*; make"),
        lock_workdir(workdir),
    ):
        pass


def test_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_workdir(epath.Path(tmp_path)):
        pass
    assert "cannot be locked ([Errno 95] Operation not supported)" in caplog.text
