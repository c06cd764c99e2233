"""A hang is told of, with what every thread is doing."""

import pathlib
import time

from effnetv2_jax.train.watchdog import Watchdog


def sleep_soundly(seconds: float) -> None:
    time.sleep(seconds)


def test_a_hang_is_told_with_the_stack_of_the_thread_that_hangs(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "told").open("w+") as told, Watchdog(0.2, stream=told) as watchdog:
        watchdog.now("the input of step 5")
        sleep_soundly(0.5)
        watchdog.now("step 5")
        told.seek(0)
        text = told.read()
    assert "WARNING: the input of step 5 has taken" in text
    assert "sleep_soundly" in text
    assert 1 <= text.count("WARNING") <= 2, "again only after as long"


def test_a_run_that_goes_on_is_left_alone(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "told").open("w+") as told, Watchdog(0.4, stream=told) as watchdog:
        for step in range(12):
            watchdog.now(f"step {step}")
            time.sleep(0.05)
        told.seek(0)
        assert not told.read()
