"""Signals end a run where it can be ended, and a second one ends it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effnetv2_jax.parallel.preemption import Preempted, Preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_breaks_off_a_wait(number: int) -> None:
    begun = time.monotonic()

    def wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    with pytest.raises(Preempted) as raised, Preemption() as preemption, preemption.waiting():
        wait()
    assert time.monotonic() - begun < 5
    assert raised.value.exit_status == 128 + number


def test_a_signal_between_waits_for_the_next_occasion() -> None:
    with Preemption() as preemption:
        preemption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # A step, which is not broken off.
        with pytest.raises(Preempted):
            preemption.check()
        with pytest.raises(Preempted), preemption.waiting():
            raise AssertionError("nothing is begun any more")


def test_the_usual_handlers_return() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Preemption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


SCRIPT = """
import time
from effnetv2_jax.parallel.preemption import Preemption
with Preemption():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_a_second_signal_ends_the_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
