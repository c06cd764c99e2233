"""One trial as a process: its output goes into its directory, and its death is told apart."""

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from etils import epath

from effnetv2_jax.outputs.storage import is_local

TRIAL = (sys.executable, "-m", "effnetv2_jax.nas.trial")
OUTPUT = "output.log"
_SIGNALS = 128


class TrialProcess:
    """`command` on a trial's directory, in a session of its own."""

    def __init__(
        self, directory: str, cores: Sequence[int] = (), command: Sequence[str] = TRIAL
    ) -> None:
        self.directory = directory
        with _output(directory) as output:
            self._log = pathlib.Path(output.name) if isinstance(output.name, str) else None
            self._process = subprocess.Popen(
                [
                    *command,
                    directory,
                    f"--parent={os.getpid()}",
                    *([f"--cores={','.join(map(str, cores))}"] if cores else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C at a terminal is the search's to hear, which tells its trials.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no longer."""
        return self._process.poll() is not None

    @property
    def died(self) -> bool:
        """Whether something killed it, so that it has to be started again."""
        code = self._process.poll()
        return code is not None and (code < 0 or code > _SIGNALS)

    @property
    def error(self) -> str | None:
        """What went wrong, in a line; None where all went well."""
        code = self._process.poll()
        if not code:
            return None
        lines = self._log.read_text(errors="replace").splitlines() if self._log else []
        errors = [line for line in lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else f"it ended with status {code}"

    def terminate(self) -> None:
        """Asks it to save its state and to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def wait(self, seconds: float | None = None) -> None:
        """Returns when it has ended.

        Raises:
          subprocess.TimeoutExpired: it takes longer.
        """
        self._process.wait(seconds)


def _output(directory: str) -> IO[bytes]:
    path = epath.Path(directory)
    if not is_local(path):
        return tempfile.NamedTemporaryFile(suffix=f".{OUTPUT}", delete=False)
    return open(pathlib.Path(directory) / OUTPUT, "ab")
