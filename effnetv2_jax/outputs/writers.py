"""Where the numbers and the story of a run go: `metrics.jsonl`, `events.jsonl` and TensorBoard."""

import contextlib
import datetime
import json
import logging
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from etils import epath

from effnetv2_jax.config.experiment import LogConfig
from effnetv2_jax.outputs.callbacks import Callback, Told
from effnetv2_jax.outputs.storage import is_local, write_text
from effnetv2_jax.outputs.workdir import WorkdirError

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
_TENSORBOARD = "tensorboard"
_FLUSH_SECONDS = 30

_log = logging.getLogger(__name__)


class Writers:
    """Writes metrics, to `metrics.jsonl` and TensorBoard if the config says so, and events.

    Whatever cannot be written raises a WorkdirError that names the file and the cause.

    Args:
      workdir: the run's directory. A remote one cannot be appended to: files are written locally
        and copied there, events at once and metrics by `flush` and `close`.
      config: of it, `tensorboard`.
      step, evaluated: the step the run continues after, 0 at its start; see `cut_back`.
      epoch_of: epochs by steps done, which then stand in every row of metrics.
      callbacks: are told the same metrics.
      enabled: False writes nothing, as all processes of a run do except the first.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        config: LogConfig,
        *,
        step: int,
        evaluated: bool = True,
        epoch_of: Callable[[int], float] | None = None,
        callbacks: Sequence[Callback] = (),
        enabled: bool = True,
    ) -> None:
        self._epoch_of = epoch_of
        self._told = Told(callbacks if enabled else ())
        self._start = step
        self._enabled = enabled
        if not enabled:
            return
        self._workdir = epath.Path(workdir)
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        if is_local(self._workdir):
            self._local = pathlib.Path(self._workdir)
            with _writing(self._local):
                self._local.mkdir(parents=True, exist_ok=True)
        else:
            self._spool = tempfile.TemporaryDirectory(prefix="effnetv2_jax_")
            self._local = pathlib.Path(self._spool.name)
            for name in (METRICS, EVENTS):
                with _writing(self._workdir / name):
                    if (self._workdir / name).exists():
                        (self._local / name).write_bytes((self._workdir / name).read_bytes())
        self._metrics = MetricsLog(self._local / METRICS, step=step, evaluated=evaluated)
        self._use_tensorboard = config.tensorboard
        self._tensorboard = self._open_tensorboard(step)

    def begin(self, total_steps: int) -> None:
        """Tells the callbacks that the run goes on from here."""
        self._told.on_start(self._start, total_steps)

    def write(
        self,
        step: int,
        kind: Literal["train", "eval"],
        metrics: Mapping[str, Any],
        **notes: Any,
    ) -> None:
        """Writes scalars under the names `<kind>/<name>`, such as `eval/top1`, and the time.

        Args:
          step: steps done when the metrics were taken.
          kind: what they belong to.
          metrics: Python, NumPy or JAX scalars.
          notes: JSON values to go with them under their own names, into `metrics.jsonl` only.
        """
        if not self._enabled:
            return
        numbers = {name: _number(value) for name, value in metrics.items()}
        if kind == "train":
            self._told.on_step_log(step, numbers)
        else:
            self._told.on_evaluation(step, numbers)
        named = {f"{kind}/{name}": _number(value) for name, value in metrics.items()}
        epoch = {} if self._epoch_of is None else {"epoch": round(self._epoch_of(step), 4)}
        self._metrics.write(step, time=_now("milliseconds"), **epoch, **named, **notes)
        if self._tensorboard is not None:
            self._tensorboard.write(step, named)

    def event(self, name: str, /, *, step: int, **fields: Any) -> None:
        """Appends a line to `events.jsonl`, the history of the run.

        Such lines stay, also when the run is rolled back behind them.

        Args:
          name: of the event, such as `start`.
          step: steps done when it happened.
          fields: what else there is to say, as JSON values; numbers that JSON lacks become null.
        """
        if not self._enabled:
            return
        line = {"time": _now("seconds"), "event": name, "step": int(step)} | _json(fields)
        _append(self._local / EVENTS, json.dumps(line, allow_nan=False))
        if self._spool is not None:
            self._copy(self._local / EVENTS)

    def cut_back(self, step: int, *, evaluated: bool = True) -> None:
        """Forgets the metrics written after `step`, for a run that is rolled back to it.

        TensorBoard's files keep them, but from now on TensorBoard does not show them.

        Args:
          step: the step.
          evaluated: False forgets an evaluation after that step itself, too: it will be repeated.
        """
        if not self._enabled:
            return
        self._metrics.cut_back(step, evaluated=evaluated)
        self._close_tensorboard()
        self._tensorboard = self._open_tensorboard(step)

    def flush(self) -> None:
        """Brings all files up to date; in a remote directory it is this that writes the metrics.

        After each checkpoint, so that a killed run finds its metrics up to there.
        """
        if not self._enabled:
            return
        if self._tensorboard is not None:
            self._tensorboard.flush()
        if self._spool is not None:
            for file in filter(pathlib.Path.is_file, self._local.rglob("*")):
                self._copy(file)

    def close(self) -> None:
        """Flushes and closes all files."""
        if not self._enabled:
            return
        try:
            self._close_tensorboard()
            self.flush()
        finally:
            if self._spool is not None:
                self._spool.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except WorkdirError as error:
            if kind is None:
                raise
            # What ended the run comes first.
            _log.warning("%s", error)

    def _copy(self, file: pathlib.Path) -> None:
        copy = self._workdir / file.relative_to(self._local).as_posix()
        with _writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())

    def _open_tensorboard(self, step: int) -> "_TensorBoardFile | None":
        if not self._use_tensorboard:
            return None
        return _TensorBoardFile(self._local / _TENSORBOARD, step=step)

    def _close_tensorboard(self) -> None:
        tensorboard, self._tensorboard = self._tensorboard, None
        if tensorboard is not None:
            tensorboard.close()


class MetricsLog:
    """A file of one JSON object a line, each with an integer `step`.

    Lines reach the file as they are written: a killed process loses none that was finished.

    Args:
      path: the file; the first line creates it.
      step, evaluated: the step to continue after, 0 at the start; see `cut_back`.
    """

    def __init__(self, path: pathlib.Path, *, step: int, evaluated: bool = True) -> None:
        self._path = path
        self.cut_back(step, evaluated=evaluated)

    def write(self, step: int, **values: Any) -> None:
        """Appends a line of scalars and text; NaN and infinity, unknown to JSON, become null."""
        line = {"step": int(step)} | _json(values)
        _append(self._path, json.dumps(line, allow_nan=False))

    def cut_back(self, step: int, *, evaluated: bool = True) -> None:
        """Drops the lines after `step`, and those that a kill or a full disk left torn.

        Unless `evaluated`, also an evaluation after `step` itself.
        """
        if not self._path.exists():
            return

        def stays(entry: dict[str, Any]) -> bool:
            if entry["step"] == step and not evaluated:
                return not any(name.startswith("eval/") for name in entry)
            return bool(entry["step"] <= step)

        with _writing(self._path):
            text = self._path.read_text(encoding="utf-8", errors="replace")
            lines = text.splitlines(keepends=True)
            kept = [
                line for line in lines if line.endswith("\n") and any(map(stays, _parsed(line)))
            ]
            if kept != lines:
                write_text(epath.Path(self._path), "".join(kept))


def read_log(path: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` or `events.jsonl`, without torn ones; none without a file."""
    file = epath.Path(path)
    if not file.exists():
        return []
    text = file.read_bytes().decode(errors="replace")
    return [entry for line in text.splitlines() for entry in _parsed(line)]


class _TensorBoardFile:
    """One of TensorBoard's files.

    `tensorboardX.SummaryWriter` writes from a thread: where the disk is full that thread ends, and
    what is written afterwards waits for it for ever.
    """

    def __init__(self, directory: pathlib.Path, *, step: int) -> None:
        # Imported late, as with it comes PyTorch, where that is installed.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event_type = Event
        self._directory = directory
        with _writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # File names count seconds; with nanoseconds a file opened right after another does not
            # overwrite it.
            self._file = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        self._flushed = -math.inf
        # TensorBoard drops what older files hold from this step on.
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        """Adds a point to each of the curves."""
        points = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._add(step, summary={"value": points})

    def flush(self) -> None:
        """Brings the file up to date, on the disk itself."""
        self._flushed = time.monotonic()
        with _writing(self._directory):
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        with _writing(self._directory):
            self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        with _writing(self._directory):
            self._file.write_event(self._event_type(wall_time=time.time(), step=step, **content))
        # A disk may take a while to say that it has everything.
        if time.monotonic() > self._flushed + _FLUSH_SECONDS:
            self.flush()


@contextlib.contextmanager
def _writing(path: epath.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path}: {error.strerror or error}; when that is mended, the same "
            "command continues the run from its newest checkpoint"
        ) from error


def _append(path: pathlib.Path, line: str) -> None:
    """Appends a line, on a line of its own also where a kill or a full disk tore the last one.

    Opens the file anew, so that a file that vanished is noticed, and nothing is left to write when
    writing failed.
    """
    with _writing(path), path.open("ab+") as file:
        torn = b""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = b"" if file.read(1) == b"\n" else b"\n"
        file.write(torn + line.encode() + b"\n")


def _parsed(line: str) -> list[dict[str, Any]]:
    """The JSON object that a line is, or nothing."""
    try:
        entry = json.loads(line)
    except ValueError:
        return []
    return [entry] if isinstance(entry, dict) else []


def _now(timespec: str) -> str:
    """The time as ISO 8601 has it, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec)


def _number(value: Any) -> int | float:
    """A NumPy or JAX scalar as the Python number it is."""
    return value if isinstance(value, int | float) else value.item()


def _json(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: _json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    number = _number(value)
    return number if math.isfinite(number) else None
