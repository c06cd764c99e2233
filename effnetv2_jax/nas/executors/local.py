"""Trials as processes of this machine, each bound to cores of its own."""

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence

from effnetv2_jax.nas.executors import Ended
from effnetv2_jax.nas.executors.process import TRIAL, TrialProcess
from effnetv2_jax.system.cores import cores

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 60
"""For trials to save their state when the search ends."""


class LocalProcesses:
    """The executor that needs nothing but this machine.

    Args:
      workers: trials at a time; None takes one for every `cores_each` of this machine.
      cores_each: of a trial.
      command: runs a trial when a directory is added to it.
    """

    def __init__(
        self, workers: int | None = None, cores_each: int = 1, command: Sequence[str] = TRIAL
    ) -> None:
        self.workers = workers or max(1, cores() // cores_each)
        here = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        # Trials share cores evenly where there are more of them than room.
        groups = [here[at : at + cores_each] for at in range(0, len(here), cores_each)]
        whole = [group for group in groups if len(group) == cores_each] or [here]
        self._free = [whole[slot % len(whole)] for slot in range(self.workers)]
        self._command = tuple(command)
        self._running: list[tuple[TrialProcess, list[int]]] = []

    def start(self, directory: str) -> None:
        """Starts a trial's process."""
        self._start(directory, self._free.pop(0))

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended; one that was killed is started again."""
        end = time.monotonic() + seconds
        while True:
            found = self._ended()
            if found or time.monotonic() >= end:
                return found
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Ends all trials; those that have not saved their state after a minute are killed."""
        for process, _ in self._running:
            process.terminate()
        end = time.monotonic() + _GRACE_SECONDS
        for process, _ in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            process.kill()
            process.wait()
        self._running = []

    def _ended(self) -> list[Ended]:
        found = []
        for process, bound in [pair for pair in self._running if pair[0].ended]:
            self._running.remove((process, bound))
            if process.died:
                self._start(process.directory, bound)
            else:
                self._free.append(bound)
                found.append(Ended(process.directory, process.error))
        return found

    def _start(self, directory: str, bound: list[int]) -> None:
        self._running.append((TrialProcess(directory, bound, self._command), bound))
