"""Trials as tasks of a Ray cluster, with endless retries: a lost worker or node loses no trial.

Of a cluster, every machine needs this package, the data and the study at the same paths.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.nas.executors import Ended
from effnetv2_jax.nas.executors.process import TRIAL, TrialProcess

_GRACE_SECONDS = 60


class TrialDied(Exception):
    """Something killed a trial's process; Ray starts it again, perhaps elsewhere."""


class TrialFailed(Exception):
    """A trial met an error that is not its candidate's; the message is that error."""


def run_process(directory: str, command: Sequence[str] = TRIAL) -> None:
    """What a task does: runs a trial in a process of its own, whose memory and devices end with it.

    Raises:
      TrialDied, TrialFailed: as they say.
    """
    process = TrialProcess(directory, command=command)
    try:
        process.wait()
    except BaseException:  # Ray cancels a task by an exception.
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if process.died:
        raise TrialDied(directory)
    if process.error is not None:
        raise TrialFailed(process.error)


class RayTasks:
    """The executor for clusters.

    Args:
      workers: tasks handed to Ray at a time; it runs as many as there are resources for.
      cores, gpus, resources: of each trial, as Ray counts them.
      address: of the cluster; empty for the one this machine is part of, or one of its own.
      run: what a task does with a trial's directory.

    Raises:
      ConfigError: Ray is not installed, or there is no such cluster.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        cores: float = 1,
        gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        address: str = "",
        run: Callable[[str], None] = run_process,
    ) -> None:
        self._ray = _import_ray()
        self.workers = workers or 64
        self._tasks: dict[Any, str] = {}
        if not self._ray.is_initialized():
            self._connect(address)
        self._remote = self._ray.remote(run).options(
            num_cpus=cores,
            num_gpus=gpus,
            resources=dict(resources or {}),
            max_retries=-1,
            retry_exceptions=[TrialDied],
        )

    def start(self, directory: str) -> None:
        """Hands a trial to Ray."""
        # A worker may be anywhere else on its machine.
        path = directory if "://" in directory else os.path.abspath(directory)
        self._tasks[self._remote.remote(path)] = directory

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended."""
        if not self._tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._tasks), timeout=seconds)
        if ready:  # It names one; others may have ended as well.
            ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        return [Ended(self._tasks.pop(task), self._error(task)) for task in ready]

    def close(self) -> None:
        """Cancels what runs, and leaves the cluster."""
        for task in self._tasks:
            self._ray.cancel(task, force=False)
        if self._tasks:
            self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=_GRACE_SECONDS)
        self._tasks = {}
        self._ray.shutdown()

    def _error(self, task: Any) -> str | None:
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            return str(error.cause) if isinstance(error.cause, TrialFailed) else str(error)
        except self._ray.exceptions.RayError as error:
            return str(error)
        return None

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray.init(address=address or None, log_to_driver=False, include_dashboard=None)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"search.address={address}: no Ray cluster: {error}") from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "search.executor=ray needs Ray: pip install 'effnetv2_jax[ray]'"
        ) from None
    return ray
