"""A trial: an ordinary run in a directory of a study, that ends with its score in `trial.json`.

    python -m effnetv2_jax.nas.trial STUDY/trials/0007

It may be killed at any time: started again, it continues its run. It ends with 0 when the score is
there, also where the candidate was given up; with 143 or 130 after SIGTERM or Ctrl-C, when its
state is saved; and with another status after an error that is not the candidate's.
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.nas.architecture import network_hash
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.cost.kept import MEASURED
from effnetv2_jax.nas.cost.parts_table import FILE as TRAFFIC
from effnetv2_jax.nas.cost.parts_table import read_parts_table
from effnetv2_jax.nas.records import (
    SEARCH,
    Proposal,
    Result,
    read_json,
    read_proposal,
    read_result,
    write_json,
    write_result,
)
from effnetv2_jax.nas.reward import reward
from effnetv2_jax.nas.space import settings
from effnetv2_jax.nas.step_time import Constant, StepTime, read_table
from effnetv2_jax.outputs.lock import lock_workdir
from effnetv2_jax.outputs.storage import write_text
from effnetv2_jax.outputs.workdir import WorkdirError

_STARTS = "starts.jsonl"
_REFERENCE = "reference.json"
_PREDECESSOR_SECONDS = 120
"""For a process to end whose coordinator was killed, and that still trains here."""
_PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>."""


class Unsuitable(Exception):
    """A candidate that is given up; the message is the reason."""


class _TooSlow(BaseException):
    """Breaks training off. Not an `Exception`: nothing that handles errors may swallow it."""


def run_trial(directory: epath.PathLike) -> Result:
    """Trains and scores what the proposal in a directory says, or continues; once, and for good.

    Raises:
      Preempted: SIGTERM or SIGINT came; the state is saved.
      StudyError, ConfigError, DataError, WorkdirError, ...: what is not the candidate's fault.
    """
    directory = epath.Path(directory)
    study = directory.parent.parent
    if (ended := read_result(directory)) is not None:
        return ended
    proposal = read_proposal(directory)
    search = Search.from_json(read_json(study / SEARCH))
    for module in search.imports:
        importlib.import_module(module)
    began = time.monotonic()
    _wait_for_predecessor(directory)
    fields: dict[str, Any] = {
        "number": proposal.number,
        "hash": proposal.hash,
        "state": "complete",
    }
    try:
        _count_start(directory, search.max_deaths)
        candidate = candidate_of(search, proposal)
        fields["network"] = network_hash(candidate.model)
        fields |= _step_time(search, candidate, study)
        fields |= _train(search, candidate, directory)
        fields |= _parameters(search, candidate, directory)
        fields["reward"] = reward(
            fields["accuracy"],
            fields["step_time"],
            fields["relative_parameters"],
            step_time_exponent=search.step_time_exponent,
            parameters_exponent=search.parameters_exponent,
        )
    except Unsuitable as unsuitable:
        fields |= {"state": "pruned", "reason": str(unsuitable)}
    result = Result(**fields, seconds=round(time.monotonic() - began, 3))
    write_result(directory, result)
    return result


def candidate_of(search: Search, proposal: Proposal) -> Experiment:
    """The experiment that a proposal trains.

    Raises:
      Unsuitable: its fields make no sense together.
    """
    chosen = settings(search.space, proposal.picks) | dict(proposal.settings)
    try:
        return with_settings(search.experiment, chosen)
    except ConfigError as error:
        raise Unsuitable(f"it makes no sense: {error}") from error


def step_time_of(search: Search, study: epath.Path) -> StepTime:
    """Where a search has S from.

    Raises:
      ConfigError: it is not to be had.
    """
    match search.cost:
        case "table":
            return read_table(search.cost_path)
        case "measured":
            # Imported here, for its JAX.
            from effnetv2_jax.nas.cost.measured import Measured

            return Measured(search.experiment, kept=study / MEASURED)
        case "compiled":
            return read_parts_table(study / TRAFFIC)
    return Constant()


def _step_time(search: Search, candidate: Experiment, study: epath.Path) -> dict[str, Any]:
    step_time = step_time_of(search, study)
    with _memory_sufficing():
        value = step_time(candidate.model)
    if search.max_step_time is not None and value > search.max_step_time:
        raise Unsuitable(
            f"too slow: its step takes {value:.3g} times the reference's, more than "
            f"search.max_step_time={search.max_step_time:g}"
        )
    return {"step_time": value, "step_time_source": step_time.source}


def _train(search: Search, candidate: Experiment, directory: epath.Path) -> dict[str, Any]:
    # Imported late: what a candidate is costs no JAX.
    from effnetv2_jax.outputs.writers import METRICS, read_log
    from effnetv2_jax.train.divergence import DivergenceError
    from effnetv2_jax.train.evaluate import HEADLINE
    from effnetv2_jax.train.loop import train

    try:
        with _at_most(search.max_seconds), _memory_sufficing():
            metrics = train(candidate, directory)
    except DivergenceError as error:
        raise Unsuitable(f"not finite: {error}") from error
    except _TooSlow:
        raise Unsuitable(
            f"too slow: it took more than search.max_seconds={search.max_seconds:g}"
        ) from None
    measured = metrics[HEADLINE[candidate.evaluation.metric]]
    if not math.isfinite(measured):
        raise Unsuitable("not finite: its accuracy")
    sums = [entry["params_sha256"] for entry in read_log(directory / METRICS) if _final(entry)]
    return {"accuracy": measured, "params_sha256": sums[-1] if sums else ""}


@contextlib.contextmanager
def _memory_sufficing() -> Iterator[None]:
    """Makes a lack of memory inside the candidate's fault."""
    from jax.errors import JaxRuntimeError

    from effnetv2_jax.parallel.memory import out_of_memory

    try:
        yield
    except MemoryError as error:
        raise Unsuitable("out of memory on the host") from error
    except JaxRuntimeError as error:
        if out_of_memory(error) is None:
            raise
        raise Unsuitable(f"out of memory: {str(error).splitlines()[0]}") from error


def _final(entry: dict[str, Any]) -> bool:
    return "params_sha256" in entry


def _parameters(search: Search, candidate: Experiment, directory: epath.Path) -> dict[str, Any]:
    """P of a candidate that was trained; the reference's is counted once in a study."""
    from effnetv2_jax.outputs.workdir import read_class_names

    classes = len(read_class_names(directory))
    path = directory.parent.parent / _REFERENCE
    try:
        reference = read_json(path)["parameters"]
    except FileNotFoundError:
        reference = count_parameters(search.experiment, classes)
        write_json(path, {"parameters": reference})
    own = count_parameters(candidate, classes)
    return {"parameters": own, "relative_parameters": own / reference}


def count_parameters(experiment: Experiment, num_classes: int) -> int:
    """How many parameters an experiment's network has."""
    import jax

    from effnetv2_jax.models.shapes import abstract_variables
    from effnetv2_jax.train.state import build_model

    variables = abstract_variables(build_model(experiment, num_classes))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _count_start(directory: epath.Path, max_deaths: int) -> None:
    """Notes a start.

    Raises:
      Unsuitable: too many before it died without getting further.
    """
    path = directory / _STARTS
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    step = _newest_checkpoint(directory / "checkpoints")
    if len(before) >= max_deaths and all(s["step"] == step for s in before[-max_deaths:]):
        raise Unsuitable(
            f"it was killed {max_deaths} times in a row at or after step {step} (out of memory on "
            "the host?)"
        )
    starts = [*before, {"step": step, "pid": os.getpid(), "time": time.time()}]
    write_text(path, "".join(json.dumps(start) + "\n" for start in starts))


def _newest_checkpoint(folder: epath.Path) -> int:
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def _wait_for_predecessor(directory: epath.Path) -> None:
    """Returns when no other process trains in a directory.

    Raises:
      WorkdirError: one goes on and on.
    """
    end = time.monotonic() + _PREDECESSOR_SECONDS
    while True:
        try:
            with lock_workdir(directory):
                return
        except WorkdirError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


@contextlib.contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Breaks off what is done inside when it takes longer; only the main thread can."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_with(parent: int) -> None:
    """Lets this process end in order when the one that started it does; on Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # It ended before.
            os._exit(128 + signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trial in a directory and returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--cores", default="", help="that it is bound to, such as 0,1")
    parser.add_argument("--parent", type=int, help="the process that it ends with")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        end_with(given.parent)
    if given.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    # Imported once the process is bound: JAX counts cores when it starts.
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.preemption import Preempted

    try:
        startup.start("off")
        run_trial(given.directory)
    except Preempted as preempted:
        return preempted.exit_status
    except Exception as error:
        traceback.print_exc()
        # The last line is what the search says of it.
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return int(getattr(error, "exit_status", 1))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # Compilations that are still under way are not waited for.
