"""Where the numbers of a run go: `metrics.jsonl` and TensorBoard's event files."""

import json
import math
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Literal, Self

from etils import epath
from tensorboardX import SummaryWriter

from effnetv2_jax.experiment import LogConfig
from effnetv2_jax.outputs.files import is_local, write_text

_METRICS = "metrics.jsonl"
_TENSORBOARD = "tensorboard"


class Writers:
    """Writes metrics to `metrics.jsonl` and, if the config wants it, for TensorBoard.

    Args:
      workdir: the run's directory. A remote one cannot be appended to: files are written locally
        and copied there by `flush` and `close`.
      config: of it, `tensorboard`.
      step: the step the run continues after, 0 at its start; see `cut_back`.
      enabled: False writes nothing, as all processes of a run do except the first.
    """

    def __init__(
        self, workdir: epath.PathLike, config: LogConfig, *, step: int, enabled: bool = True
    ) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._workdir = epath.Path(workdir)
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        if is_local(self._workdir):
            self._local = pathlib.Path(self._workdir)
        else:
            self._spool = tempfile.TemporaryDirectory(prefix="effnetv2_jax_")
            self._local = pathlib.Path(self._spool.name)
            if (self._workdir / _METRICS).exists():
                (self._local / _METRICS).write_text((self._workdir / _METRICS).read_text())
        self._local.mkdir(parents=True, exist_ok=True)
        self._log = MetricsLog(self._local / _METRICS, step=step)
        self._use_tensorboard = config.tensorboard
        self._tensorboard = self._open_tensorboard(step)

    def write(
        self,
        step: int,
        kind: Literal["train", "eval"],
        metrics: Mapping[str, Any],
        **notes: str,
    ) -> None:
        """Writes scalars under the names `<kind>/<name>`, such as `eval/top1`.

        Args:
          step: steps done when the metrics were taken.
          kind: what they belong to.
          metrics: Python, NumPy or JAX scalars.
          notes: text to go with them under its own names, into `metrics.jsonl` only.
        """
        if not self._enabled:
            return
        named = {f"{kind}/{name}": _number(value) for name, value in metrics.items()}
        self._log.write(step, **named, **notes)
        if self._tensorboard is not None:
            for name, value in named.items():
                self._tensorboard.add_scalar(name, value, step)

    def cut_back(self, step: int) -> None:
        """Forgets what was written after `step`, for a run that goes back to it.

        TensorBoard's files keep it, but from now on TensorBoard does not show it.
        """
        if not self._enabled:
            return
        self._log.cut_back(step)
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._tensorboard = self._open_tensorboard(step)

    def flush(self) -> None:
        """Brings all files up to date; in a remote directory it is this that writes them.

        After each checkpoint, so that a killed run finds its metrics up to there.
        """
        if not self._enabled:
            return
        if self._tensorboard is not None:
            self._tensorboard.flush()
        if self._spool is not None:
            for file in filter(pathlib.Path.is_file, self._local.rglob("*")):
                copy = self._workdir / file.relative_to(self._local).as_posix()
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())

    def close(self) -> None:
        """Flushes and closes all files."""
        if not self._enabled:
            return
        self._log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        self.flush()
        if self._spool is not None:
            self._spool.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_tensorboard(self, step: int) -> SummaryWriter | None:
        if not self._use_tensorboard:
            return None
        # TensorBoard drops what older files hold from purge_step on. File names count seconds;
        # with nanoseconds a writer opened right after another does not overwrite its file.
        return SummaryWriter(
            str(self._local / _TENSORBOARD),
            purge_step=step + 1,
            filename_suffix=f".{time.time_ns()}",
        )


class MetricsLog:
    """A file of one JSON object a line, each with an integer `step`.

    Lines reach the file as they are written: a killed process loses none that was finished.

    Args:
      path: the file; created if missing.
      step: the step to continue after, 0 at the start; see `cut_back`.
    """

    def __init__(self, path: pathlib.Path, *, step: int) -> None:
        self._path = path
        if path.exists():
            self._cut(step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Appends a line of scalars and text; NaN and infinity, unknown to JSON, become null."""
        line = {"step": int(step)} | {name: _json(value) for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def cut_back(self, step: int) -> None:
        """Drops the lines after `step`, and a last line that a killed process left torn."""
        self._file.close()
        self._cut(step)
        self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _cut(self, step: int) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        if kept != lines:
            write_text(epath.Path(self._path), "".join(kept))


def _number(value: Any) -> int | float:
    """A NumPy or JAX scalar as the Python number it is."""
    return value if isinstance(value, int | float) else value.item()


def _json(value: Any) -> int | float | str | None:
    if isinstance(value, str):
        return value
    number = _number(value)
    return number if math.isfinite(number) else None
