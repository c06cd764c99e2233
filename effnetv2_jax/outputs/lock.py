"""Keeps a second run out of a working directory that one is using."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from effnetv2_jax.outputs.storage import is_local, read_fresh
from effnetv2_jax.outputs.workdir import WorkdirError

_LOCK = ".lock"
_LEASE = "lock.json"
_POLLS = 8
"""How often a lease is looked at while it should be renewed twice."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock_workdir(
    workdir: epath.Path, *, interval: float = 15.0, settle: float = 1.0
) -> Iterator["WorkdirLock"]:
    """Holds a working directory for the length of a context; one process of a run calls it.

    A local directory is locked by the system, which unlocks it when the process ends, however it
    ends. In a remote one a lease is renewed as long as the process lives: who finds one that is not
    renewed, because its process was killed, takes it over. Where a lease is from this machine and
    its process is gone, that takes no waiting.

    Args:
      workdir: the directory, local or `gs://`; created if missing.
      interval: seconds between renewals of a lease. A start waits a bit more than two of them.
      settle: seconds after which a new lease is looked at again, in case two runs took it at once.

    Raises:
      WorkdirError: another process holds the directory, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        lock = WorkdirLock()
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if is_local(workdir):
                stack.enter_context(_locked(pathlib.Path(workdir)))
            else:
                lock = stack.enter_context(_leased(workdir, interval, settle))
        except OSError as error:
            raise WorkdirError(
                f"cannot lock {workdir}: {error}; make it writable or choose another --workdir"
            ) from error
        yield lock


class WorkdirLock:
    """A working directory that this process holds."""

    def check(self) -> None:
        """Raises a WorkdirError if another run has taken the directory meanwhile.

        That happens to a lease only, of a process that was stopped or cut off from the directory.
        """


_held: set[int] = set()


def _forget() -> None:
    """A forked process must not keep a lock that its parent had."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    # Programs that this process starts do not inherit the descriptor.
    descriptor = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(workdir, os.pread(descriptor, 4096, 0).decode()) from None
        except OSError as error:
            _log.warning(
                "%s cannot be locked (%s): see to it that no other run uses it", workdir, error
            )
        with contextlib.suppress(OSError):  # On a full disk the lock holds without saying whose.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def _leased(workdir: epath.Path, interval: float, settle: float) -> Iterator[WorkdirLock]:
    path = workdir / _LEASE
    _wait_for_end(path, interval)
    lease = _Lease(path, interval)
    lease.renew()
    time.sleep(settle)
    if not lease.is_mine():
        raise _in_use(workdir, read_fresh(path) or "")
    lease.start()
    try:
        yield lease
    finally:
        lease.end()


def _wait_for_end(path: epath.Path, interval: float) -> None:
    """Returns when nobody holds a lease; raises a WorkdirError if somebody does."""
    found = read_fresh(path)
    if found is None or _has_died(_parse(found)):
        return
    end = time.monotonic() + 2.25 * interval
    while time.monotonic() < end:
        time.sleep(2 * interval / _POLLS)
        now = read_fresh(path)
        if now is None:
            return
        if now != found:
            raise _in_use(path.parent, now)


class _Lease(WorkdirLock):
    """A file that says who holds a directory, and whose content changes as long as he does."""

    def __init__(self, path: epath.Path, interval: float) -> None:
        self._path = path
        self._interval = interval
        self._holder = _holder() | {"token": secrets.token_hex(8)}
        self._renewed = 0
        self._lost: str | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="workdir lease", daemon=True)

    def check(self) -> None:
        if self._lost is not None:
            raise _in_use(self._path.parent, self._lost)

    def is_mine(self) -> bool:
        return _parse(read_fresh(self._path) or "").get("token") == self._holder["token"]

    def renew(self) -> None:
        self._renewed += 1
        self._path.write_text(json.dumps(self._holder | {"renewed": self._renewed}))

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()
        try:
            if self.is_mine():
                self._path.unlink()
        except Exception as error:
            _log.warning("%s could not be removed: %s", self._path, error)

    def _keep(self) -> None:
        while not self._ends.wait(self._interval):
            try:
                if not self.is_mine():
                    _log.error("another run has taken %s over", self._path.parent)
                    self._lost = read_fresh(self._path) or ""
                    return
                self.renew()
            except Exception as error:  # Whatever the network does, the next time may go well.
                _log.warning("%s could not be renewed: %s", self._path, error)


def _holder() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": now.isoformat(sep=" ", timespec="seconds"),
        "machine": _machine(),
    }


def _machine() -> str:
    """Names the scope of a process number: one boot of a machine, and one container."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _has_died(holder: dict[str, Any]) -> bool:
    """Whether it is known that the process is gone."""
    machine, pid = holder.get("machine"), holder.get("pid")
    if not machine or machine != _machine() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _in_use(workdir: os.PathLike[str], details: str) -> WorkdirError:
    holder = _parse(details)
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
    return WorkdirError(
        f"{os.fspath(workdir)} is in use by {who}; wait for its end, stop it, or choose another "
        "--workdir"
    )


def _parse(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
