"""A run in a bucket of Google Cloud Storage, without TensorFlow: against an emulator."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

if not all(map(importlib.util.find_spec, ("gcsfs", "gcp_storage_emulator"))):
    pytest.skip("needs gcsfs and gcp-storage-emulator", allow_module_level=True)

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a process needs to find the emulator in place of Google's servers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1"]
    command += [f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as emulator:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        url = f"http://127.0.0.1:{port}"
        yield os.environ | {
            "EPATH_USE_TF": "false",
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            # Neither asks for credentials, nor looks for a machine of Google's that has some.
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GOOGLE_CLOUD_PROJECT": "test",
            "NO_GCE_CHECK": "true",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
        }
        emulator.kill()


def start(script: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, environment: dict[str, str], *arguments: str) -> str:
    process = start(script, environment, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


RECORDS = """
    import sys
    from etils import epath
    from effnetv2_jax.config.experiment import LogConfig
    from effnetv2_jax.outputs.workdir import WorkdirError, open_workdir
    from effnetv2_jax.outputs.writers import Writers
    from effnetv2_jax.preprocessing import squashed

    workdir = epath.Path("gs://bucket/records")
    for seed in (0, 0, 1):
        try:
            open_workdir(workdir, {"seed": seed}, ["glass"], squashed(32))
        except WorkdirError as error:
            assert seed == 1 and "seed: 0 -> 1" in str(error), error
    for step in (0, 1):
        with Writers(workdir, LogConfig(), step=step) as writers:
            writers.write(step + 1, "train", {"loss": 1.0})
            writers.write(step + 2, "train", {"loss": 2.0})
    print((workdir / "metrics.jsonl").read_text())
    names = sorted(path.name for path in workdir.iterdir())
    assert "config.json" in names and "tensorboard" in names, names
    assert len(list((workdir / "tensorboard").iterdir())) == 2
    assert "tensorflow" not in sys.modules
"""


def test_records(environment: dict[str, str]) -> None:
    lines = run(RECORDS, environment).split("\n")
    assert [json.loads(line)["step"] for line in lines if line.startswith("{")] == [1, 2, 3]


CHECKPOINTS = """
    import sys
    import jax
    import jax.numpy as jnp
    import pytest
    from etils import epath
    from effnetv2_jax.config.experiment import CheckpointConfig
    from effnetv2_jax.outputs.checkpoints import (
        BrokenCheckpointError, Checkpoints, has_checkpoint
    )

    directory = epath.Path("gs://bucket/run/checkpoints")
    config = CheckpointConfig(every_steps=1, keep_last=3)
    like = {"params": jnp.zeros(10)}
    assert not has_checkpoint(directory)
    with Checkpoints(directory, config) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"params": jnp.arange(10.0) + step}, extra={"salt": step})
        assert checkpoints.restore(like)["params"][0] == 4
    assert sorted(path.name for path in directory.iterdir()) == ["2", "3", "4"]
    assert has_checkpoint(directory)

    # A killed process leaves one without the file that ends it; another is damaged.
    (directory / "5" / "state").mkdir(parents=True)
    (directory / "5" / "state" / "d").write_text("half")
    for path in (directory / "4" / "state" / "d").iterdir():
        path.unlink()
    reported = []
    with Checkpoints(directory, config) as checkpoints:
        assert checkpoints.latest_step() == 4
        with pytest.raises(BrokenCheckpointError):
            checkpoints.restore(like)
        step, state = checkpoints.restore_newest(like, report=reported.append)
        assert step == 3 and state["params"][0] == 3
        assert checkpoints.latest_step() == 3
        assert checkpoints.save(4, {"params": jnp.arange(10.0) + 40})
        assert checkpoints.restore(like)["params"][0] == 40
    assert len(reported) == 1 and "gs://bucket/run/broken_checkpoints/4" in reported[0], reported
    assert sorted(path.name for path in directory.iterdir()) == ["2", "3", "4"]
    assert [path.name for path in (directory.parent / "broken_checkpoints").iterdir()] == ["4"]
    for path in directory.iterdir():
        path.rmtree()
    (directory / "5" / "state").mkdir(parents=True)
    (directory / "5" / "state" / "d").write_text("half")
    assert not has_checkpoint(directory)
    assert "tensorflow" not in sys.modules
"""


def test_checkpoints(environment: dict[str, str]) -> None:
    run(CHECKPOINTS, environment)


HOLD = """
    import sys, time
    from etils import epath
    from effnetv2_jax.outputs import lock
    from effnetv2_jax.outputs.workdir import WorkdirError

    workdir, machine, seconds = epath.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    if machine != "here":
        lock._machine = lambda: machine
    list(workdir.iterdir()) if workdir.exists() else []
    started = time.monotonic()
    try:
        with lock.lock_workdir(workdir, interval=0.4, settle=0.3) as held:
            print(f"locked {time.monotonic() - started:.2f}", flush=True)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                held.check()
                time.sleep(0.05)
    except WorkdirError as error:
        print(f"refused {error}", flush=True)
"""


def test_a_lease(environment: dict[str, str]) -> None:
    """Of a run that lives, that was killed on this machine, on another, and that ended."""
    workdir = "gs://bucket/leased"
    with start(HOLD, environment, workdir, "here", "60") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("locked")
        for machine in ("here", "there"):
            refused = run(HOLD, environment, workdir, machine, "0")
            assert f"refused {workdir} is in use by process {holder.pid} on " in refused
        holder.send_signal(signal.SIGKILL)
    waited = float(run(HOLD, environment, workdir, "here", "0").split()[1])
    assert waited < 0.8, "its process is known to be gone"

    with start(HOLD, environment, workdir, "here", "60") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("locked")
        holder.send_signal(signal.SIGKILL)
    waited = float(run(HOLD, environment, workdir, "there", "0").split()[1])
    assert waited > 0.8, "it could still be renewed"
    waited = float(run(HOLD, environment, workdir, "there", "0").split()[1])
    assert waited < 0.8, "the run before gave it back"


def test_a_run_that_slept_finds_another_one_in_its_place(environment: dict[str, str]) -> None:
    workdir = "gs://bucket/taken"
    with start(HOLD, environment, workdir, "here", "60") as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("locked")
        first.send_signal(signal.SIGSTOP)
        with start(HOLD, environment, workdir, "there", "60") as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("locked")
            first.send_signal(signal.SIGCONT)
            told = f"refused {workdir} is in use by process {second.pid} on "
            assert told in first.communicate(timeout=30)[0]
            assert second.poll() is None
            second.kill()


def test_of_two_that_take_a_lease_at_once_one_gets_it(environment: dict[str, str]) -> None:
    holders = [start(HOLD, environment, "gs://bucket/race", "here", "3") for _ in range(2)]
    outputs = [holder.communicate(timeout=60)[0].split()[0] for holder in holders]
    assert sorted(outputs) == ["locked", "refused"]
