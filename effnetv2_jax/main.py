"""Trains, evaluates or plans an experiment, or looks for its learning rate.

    python -m effnetv2_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Every field of the config can be overridden: --config.epochs=10, --config.stages[0].image_size=96,
--config.ema_decay=none. `--flag value` means the same as `--flag=value`. FILE or configs/FILE that
is not found here is looked for among those that come with the package.

Ends with 0 when all is done; 1 after an error in the data, the weights, the working directory or a
checkpoint, which a restart does not cure; 2 if the command line or the config makes no sense; 3 if
training diverged; 143 or 130 if SIGTERM or Ctrl-C stopped it: started again, it goes on from there.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from effnetv2_jax.cli.command_line import Command
    from effnetv2_jax.outputs.progress import Progress

LEAVING_SECONDS = 10
"""For the processes of a run to end together; one that failed alone goes without the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    try:
        return _main(sys.argv if arguments is None else arguments)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130


def _main(arguments: Sequence[str]) -> int:
    # Imported here, so that Ctrl-C is heard meanwhile.
    from effnetv2_jax.cli.command_line import parse
    from effnetv2_jax.cli.errors import CommandError, complain
    from effnetv2_jax.config.errors import ConfigError
    from effnetv2_jax.outputs.workdir import WorkdirError
    from effnetv2_jax.weights.errors import WeightsError

    try:
        command = parse(arguments, description=__doc__)
    except (CommandError, ConfigError, WeightsError, WorkdirError) as error:
        return complain(error)
    if isinstance(command, str):
        print(command)
        return 0
    for text in command.notes:
        note(text)
    if command.mode != "train":
        return run(command)
    from effnetv2_jax import __version__
    from effnetv2_jax.outputs.progress import Progress

    # XLA logs a slow compilation as an error, into the line that says so already; what is wrong
    # comes as an exception. Whoever sets the variable sees all.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    progress = Progress()
    progress.message(
        f"effnetv2_jax {__version__}: {command.config_file} to {command.workdir}; loading JAX"
    )
    progress.waiting("loading JAX and meeting the other processes")
    with progress.ticking():
        return run(command, progress)


def note(text: str) -> None:
    """Says what is worth knowing and no result."""
    print(text, file=sys.stderr)


def run(command: "Command", progress: "Progress | None" = None) -> int:
    """Does what a command says and returns the exit status.

    Args:
      progress: of a training.
    """
    # Imported late, so that a mistyped flag is answered at once.
    from jax.errors import JaxRuntimeError

    from effnetv2_jax.cli.compiled_plan import describe_compiled
    from effnetv2_jax.cli.errors import complain
    from effnetv2_jax.cli.plan import describe
    from effnetv2_jax.cli.rates import describe_rates
    from effnetv2_jax.config.errors import ConfigError
    from effnetv2_jax.data import DataError
    from effnetv2_jax.outputs.checkpoints import CheckpointError
    from effnetv2_jax.outputs.workdir import WorkdirError
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.distributed import StartupError
    from effnetv2_jax.parallel.memory import out_of_memory
    from effnetv2_jax.parallel.preemption import Preempted
    from effnetv2_jax.parallel.topology import TopologyError
    from effnetv2_jax.train.divergence import DivergenceError
    from effnetv2_jax.train.evaluate_weights import evaluate_init, evaluate_run, results_table
    from effnetv2_jax.train.find_rate import find_rate
    from effnetv2_jax.train.loop import train
    from effnetv2_jax.weights.errors import WeightsError

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        distributed = "off" if command.mode == "plan" else command.experiment.distributed
        # JAX cannot read back what it compiled for devices that are not here.
        startup.start(distributed, cache=command.topology in ("", "local"))
        match command.mode:
            case "plan":
                print(describe(command.experiment))
                if command.scaling:
                    # Of one family, which may be missing.
                    from effnetv2_jax.cli.scaling_plan import describe_scaling

                    print()
                    for line in describe_scaling(command.experiment):
                        print(line, flush=True)
                if command.topology:
                    lines = describe_compiled(
                        command.experiment, command.topology, search=command.largest_batch
                    )
                    print()
                    for line in lines:  # Each takes a compilation.
                        print(line, flush=True)
            case "find_rate":
                found = find_rate(command.experiment, report=note)
                for line in describe_rates(found, command.workdir):
                    print(line)
            case "train":
                origin = {"config_file": command.config_file, "changed": list(command.changed)}
                train(command.experiment, command.workdir, progress=progress, origin=origin)
            case "eval" if command.workdir:
                results = evaluate_run(
                    command.experiment,
                    command.workdir,
                    checkpoint=command.checkpoint,
                    report=note,
                )
                print(results_table(results))
            case "eval":
                print(results_table(evaluate_init(command.experiment, report=note)))
    except Preempted as preempted:
        print(f"{preempted}; the same command continues", file=sys.stderr)
        return preempted.exit_status
    except (
        ConfigError,
        TopologyError,
        DataError,
        WeightsError,
        WorkdirError,
        CheckpointError,
        StartupError,
        DivergenceError,
    ) as error:
        if progress is not None:
            progress.close()
        return complain(error)
    except JaxRuntimeError as error:
        if progress is not None:
            progress.close()
        if (message := out_of_memory(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    return 0


def entry() -> NoReturn:
    """`main` as a program."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception:
        traceback.print_exc()
        status = 1
    if status == 0:
        sys.exit(0)
    # At its usual end Python would wait for programs that are still compiling, though after a
    # signal the time left is short, and JAX for other processes, which wait for this one.
    leaving = threading.Thread(target=_leave_the_others, daemon=True)
    leaving.start()
    leaving.join(LEAVING_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _leave_the_others() -> None:
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        jax.distributed.shutdown()


if __name__ == "__main__":
    entry()
