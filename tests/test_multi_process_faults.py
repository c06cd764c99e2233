"""What one process of a run meets alone, and how the others learn of it."""

import os
import re
import signal
import textwrap
import time
from pathlib import Path

import pytest
import tiny
from chaos import one_bright_picture, runs
from chaos.one_bright_picture import BRIGHT
from etils import epath
from processes import Processes

from effnetv2_jax.config.experiment import FaultsConfig
from effnetv2_jax.outputs.lock import lock_workdir

pytestmark = pytest.mark.slow

AT_ONCE = 60
"""Seconds, which are fewer than any of JAX's or Orbax's timeouts."""


def wait_for(started: Processes, text: str) -> None:
    """Until all of them have written it."""
    while not all(text in output for output in started.outputs()):
        assert started.run(), started.outputs()
        time.sleep(0.05)


def first_to_end(started: Processes) -> int:
    """The index of the process that ends first, which has to be soon."""
    end = time.monotonic() + AT_ONCE
    while started.run():
        assert time.monotonic() < end, started.outputs()
        time.sleep(0.05)
    return [process.poll() is None for process in started.processes].index(False)


STEPS = """
    import pathlib, sys, time
    from jax.experimental import multihost_utils
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.preemption import Preempted, Preemption

    startup.start("on")
    with Preemption() as preemption:
        print("restores a checkpoint", flush=True)
        while not pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.05)
        try:
            for steps in range(1, 50):
                multihost_utils.sync_global_devices(f"step {steps}")
                preemption.check()
        except Preempted:
            print("stopped after", steps, flush=True)
"""


def test_a_signal_before_the_first_step_stops_all_of_them_after_it(tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    arguments = "-c", textwrap.dedent(STEPS), str(go_on)
    with Processes(*arguments, folder=tmp_path, count=2) as started:
        wait_for(started, "restores")
        os.kill(started.processes[1].pid, signal.SIGTERM)
        time.sleep(3)  # JAX's service tells of it after a second.
        go_on.touch()
        stopped = [re.findall("stopped after (.*)", output) for output in started.finish()]
    assert stopped == [["1"], ["1"]]


def test_a_workdir_in_use_ends_all_of_them(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with lock_workdir(epath.Path(workdir)):
        first, second = runs.launch(tiny.experiment(), workdir, processes=2).finish(1)
    assert f"is in use by process {os.getpid()}" in first
    assert f"another process cannot use {workdir}" in second


def test_an_error_of_one_of_them_ends_it_at_once(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    one_bright_picture.make_pictures(pictures)
    (broken,) = pictures.rglob(BRIGHT)
    broken.write_bytes(b"broken")
    run = one_bright_picture.experiment(pictures, seed=5, faults=FaultsConfig(), max_unreadable=0)
    with runs.launch(run, tmp_path / "run", processes=2) as started:
        ended = first_to_end(started)
    assert started.processes[ended].returncode == 1
    output = started.outputs()[ended]
    assert str(broken) in output
    assert "Traceback" not in output


FULL = """
    import resource, signal, sys
    import jax
    import numpy as np
    from effnetv2_jax.config.experiment import CheckpointConfig
    from effnetv2_jax.outputs.checkpoints import CheckpointError, Checkpoints
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.mesh import make_mesh, replicated

    startup.start("on")
    params, sharding = np.arange(1e5, dtype=np.float32), replicated(make_mesh())
    state = {"params": jax.make_array_from_callback(params.shape, sharding, params.__getitem__)}
    checkpoints = Checkpoints(sys.argv[1], CheckpointConfig(every_steps=1))
    checkpoints.save(1, state)
    checkpoints.wait()
    if jax.process_index() == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    checkpoints.save(2, state)
    try:
        checkpoints.wait()
    except CheckpointError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(error, flush=True)
"""


def test_a_full_disk_of_one_of_them_is_told_of_at_once(tmp_path: Path) -> None:
    arguments = "-c", textwrap.dedent(FULL), str(tmp_path / "checkpoints")
    with Processes(*arguments, folder=tmp_path, count=2) as started:
        end = time.monotonic() + AT_ONCE
        while "cannot save step 2" not in started.outputs()[0]:
            assert time.monotonic() < end, started.outputs()
            time.sleep(0.1)
    assert "The checkpoint of step 1 is there" in started.outputs()[0]
