"""Who runs trials: processes here, and Ray's tasks; both through kills."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import searches
from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.nas.executors import Ended
from effnetv2_jax.nas.executors.local import LocalProcesses
from effnetv2_jax.nas.executors.process import TrialProcess
from effnetv2_jax.nas.records import StudyError
from effnetv2_jax.nas.run import make_executor
from effnetv2_jax.nas.study import Study, open_study

SAYS = "import sys; print('error: the disk is full'); sys.exit(1)"
SLEEPS = "import time; time.sleep(60)"


def command(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def test_what_a_process_says_when_it_fails(tmp_path: Path) -> None:
    executor = LocalProcesses(1, command=command(SAYS))
    executor.start(str(tmp_path))
    assert executor.wait(30) == [Ended(str(tmp_path), "the disk is full")]
    executor.start(str(tmp_path))
    assert executor.wait(30), "and there is room again"
    assert (tmp_path / "output.log").read_text().count("the disk is full") == 2


def test_a_process_that_ends_well(tmp_path: Path) -> None:
    executor = LocalProcesses(1, command=command("pass"))
    executor.start(str(tmp_path))
    assert executor.wait(30) == [Ended(str(tmp_path), None)]


def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    # It ends by itself where it has been before.
    program = (
        "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]) / 'been';"
        "p.exists() or (p.touch(), os.kill(os.getpid(), 9))"
    )
    executor = LocalProcesses(1, command=command(program))
    executor.start(str(tmp_path))
    assert executor.wait(30) == [Ended(str(tmp_path), None)]
    assert (tmp_path / "been").exists()


def test_the_end_of_a_search_ends_its_processes(tmp_path: Path) -> None:
    executor = LocalProcesses(2, command=command(SLEEPS))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        executor.start(str(tmp_path / name))
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 30
    assert executor.wait(0.0) == []


def test_a_process_of_its_own_session(tmp_path: Path) -> None:
    process = TrialProcess(str(tmp_path), command=command(SLEEPS))
    assert os.getsid(process.pid) == process.pid, "Ctrl-C here is not for it"
    process.kill()
    process.wait(30)
    assert process.died


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert LocalProcesses(None, 2).workers == 4
    assert LocalProcesses(None, 3)._free == [[0, 1, 2], [3, 4, 5]]
    assert LocalProcesses(3, 4)._free == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert LocalProcesses(1, 16)._free == [list(range(8))]


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'effnetv2_jax\[ray\]'"):
        make_executor(searches.search(executor="ray"))


@pytest.mark.slow
def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """Trials, their workers and the coordinator: all are killed, and the study is the same."""
    script = str(searches.TESTS / "stub_search.py")
    environment = _environment()
    subprocess.run([sys.executable, script, str(tmp_path / "alone")], env=environment, check=True)
    kills = 0
    for patience in (4.0, 6.0, 5.0, 300.0):
        coordinator = subprocess.Popen(
            [sys.executable, script, str(tmp_path / "killed")], env=environment
        )
        end = time.monotonic() + patience
        while coordinator.poll() is None and time.monotonic() < end:
            time.sleep(0.4)
            if kills < 10:
                kills += _kill_one(tmp_path / "killed")
        coordinator.kill()
        coordinator.wait()
    assert coordinator.returncode == 0
    assert kills == 10
    alone, killed = (_records(tmp_path / name) for name in ("alone", "killed"))
    assert len(alone) > 12
    assert alone == killed


def _environment() -> dict[str, str]:
    """For programs of the tests, whose trials take a second."""
    paths = os.pathsep.join([str(searches.TESTS.parent), str(searches.TESTS)])
    return os.environ | {"PYTHONPATH": paths, "STUB_SECONDS": "0.05"}


def _kill_one(study: Path) -> bool:
    """Kills the process of a trial that runs."""
    for pids in study.glob("trials/*/pids"):
        if not (pids.parent / "trial.json").exists():
            try:
                os.kill(int(pids.read_text().splitlines()[-1]), signal.SIGKILL)
            except (ProcessLookupError, IndexError):
                continue
            return True
    return False


def _records(study: Path) -> dict[str, object]:
    """All that a study keeps, by file."""
    names = ("proposal.json", "trial.json")
    files = sorted(path for name in names for path in study.glob(f"trials/*/{name}"))
    return {str(path.relative_to(study)): json.loads(path.read_text()) for path in files}


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
@pytest.mark.skipif(not shutil.which("unshare"), reason="a network of its own needs unshare")
def test_ray_through_kills_and_the_loss_of_a_node(tmp_path: Path) -> None:
    script = searches.TESTS / "stub_ray.py"
    inside = f"ip link set lo up && exec {sys.executable} {script} {tmp_path / 'study'}"
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    environment = _environment()
    done = subprocess.run(
        [*unshare, "sh", "-c", inside],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode and "unshare" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("unshare is not permitted here")
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kills"] >= 5
    assert said["nodes_lost"] == 1
    study = epath.Path(tmp_path / "study")
    inline = searches.run(searches.search(trials=16, lag=12), tmp_path / "alone", searches.Inline())
    opened = open_study(searches.search(trials=16, lag=12), study, workers=6)
    continued = Study(opened, study, searches.Inline(), report=print)
    assert continued.proposals == inline.proposals
    assert continued.results == inline.results


def test_a_study_that_cannot_be_read_stops_a_search(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(StudyError, match="this is no search"):
        open_study(searches.search(), epath.Path(tmp_path), workers=1)
