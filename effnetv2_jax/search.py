"""Searches for a network, or any other fields of a config: many short trainings, then the winner.

    python -m effnetv2_jax.search --config=configs/search_quickstart.py --workdir=STUDY

Any config may be swept:

    python -m effnetv2_jax.search --config=configs/quickstart.py --workdir=SWEEP \\
        --choices.optimizer.learning_rate=0.05,0.1,0.2

Stopped by Ctrl-C or SIGTERM, or killed, the same command continues; docs/search.md says more.

Ends with 0 when all trials are done; 1 if the study cannot go on, as when too many trials in a row
fail; 2 if the command line or the config makes no sense; 143 or 130 if SIGTERM or Ctrl-C stopped
it.
"""

import contextlib
import importlib.util
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnetv2_jax.cli.search_command import SearchCommand


class Stopped(BaseException):
    """A signal asks the search to end. Not an `Exception`, as KeyboardInterrupt is none."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    # Imported here, so that Ctrl-C is heard meanwhile.
    from effnetv2_jax.cli.errors import CommandError, complain
    from effnetv2_jax.cli.search_command import parse_search
    from effnetv2_jax.config.errors import ConfigError
    from effnetv2_jax.outputs.workdir import WorkdirError
    from effnetv2_jax.weights.errors import WeightsError

    try:
        command = parse_search(
            sys.argv if arguments is None else arguments, description=__doc__ or ""
        )
    except (CommandError, ConfigError, WeightsError, WorkdirError) as error:
        return complain(error)
    except KeyboardInterrupt:
        return 130
    if isinstance(command, str):
        print(command)
        return 0
    for note in command.notes:
        print(note, file=sys.stderr)
    return run(command)


def run(command: "SearchCommand") -> int:
    """Does what a command says and returns the exit status."""
    from effnetv2_jax.cli.errors import complain
    from effnetv2_jax.cli.search_plan import describe_search, describe_space, describe_winner
    from effnetv2_jax.config.errors import ConfigError
    from effnetv2_jax.data import DataError
    from effnetv2_jax.nas.live import LiveLine
    from effnetv2_jax.nas.records import StudyError
    from effnetv2_jax.outputs.progress import Progress
    from effnetv2_jax.outputs.workdir import WorkdirError
    from effnetv2_jax.parallel.topology import TopologyError

    if command.mode == "search" and importlib.util.find_spec("optuna") is None:
        return complain(ConfigError("a search needs Optuna: pip install 'effnetv2_jax[search]'"))
    progress = Progress()
    try:
        if command.mode == "plan":
            print(describe_search(command.search, command.workdir))
            return 0
        progress.message(describe_space(command.search))
        # Imported late: Optuna takes a second.
        from effnetv2_jax.nas.run import make_executor, run_search

        with contextlib.closing(make_executor(command.search)) as executor, _hearing_signals():
            best = run_search(
                command.search,
                command.workdir,
                executor,
                report=progress.message,
                show=LiveLine(progress, live=sys.stderr.isatty()),
            )
    except Stopped as stopped:
        progress.message(f"{stopped}; the same command continues")
        return stopped.exit_status
    except KeyboardInterrupt:
        return 130
    except (
        ConfigError,
        DataError,
        StudyError,
        TopologyError,
        WorkdirError,
        OSError,
    ) as error:
        progress.close()
        return complain(error)
    progress.close()
    if best is None:
        print("every trial was given up", file=sys.stderr)
        return 1
    print(describe_winner(command.workdir))
    return 0


@contextlib.contextmanager
def _hearing_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise `Stopped`; a second one has its usual effect."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise Stopped(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


if __name__ == "__main__":
    sys.exit(main())
