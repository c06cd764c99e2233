"""The command line as a checked experiment, with errors that name the flag or field."""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import ml_collections
from absl import flags

from effnetv2_jax import __version__
from effnetv2_jax.cli.arguments import normalize
from effnetv2_jax.cli.config_file import find_config_file
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.evaluation import config_of_run, left_out
from effnetv2_jax.cli.families import import_family
from effnetv2_jax.cli.help import help_text
from effnetv2_jax.cli.overrides import (
    adapt,
    assign,
    check_network,
    read_overrides,
)
from effnetv2_jax.cli.suggestions import meant
from effnetv2_jax.cli.winner import with_winner
from effnetv2_jax.config.differences import flatten
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.outputs.workdir import (
    Checkpoint,
    split_checkpoint,
    winner_or_itself,
    workdir_path,
)
from effnetv2_jax.weights.run_config import network_of

Mode = Literal["train", "eval", "plan", "find_rate"]


@dataclasses.dataclass(frozen=True)
class Command:
    """What was asked for."""

    mode: Mode
    experiment: Experiment
    workdir: str
    """Empty only for `plan` and `find_rate`, and for `eval` of the weights in `experiment.init`."""
    checkpoint: Checkpoint = "last"
    """`eval`: which of the run's."""
    topology: str = ""
    """`plan`: compiles every stage for these devices."""
    largest_batch: bool = False
    """`plan` for a topology: also finds the largest batch that fits."""
    scaling: bool = False
    """`plan`: also shows the family that scaling makes of the network."""
    config_file: str = ""
    """As `--config` names it; empty where there is none."""
    changed: tuple[str, ...] = ()
    """Fields that differ from the file's, as `field: old -> new`."""
    notes: tuple[str, ...] = ()
    """What the overrides brought along that they do not say themselves."""


def parse(arguments: Sequence[str], *, description: str = "") -> Command | str:
    """Reads a command line, program name first, and its config file with all overrides.

    Modules that `--import` names are imported.

    Returns:
      The command, or the text of `--help` or `--version` if that was asked for.

    Raises:
      CommandError: a flag or config field is unknown or has a bad value, or there is no such
        config file or module.
      ConfigError: the config makes no sense.
      WeightsError: the run to start from, or to evaluate, cannot be read.
      WorkdirError: nothing here reads such a working directory.
    """
    program, *given = arguments
    rest = list(normalize(given))
    if {"--version", "-version"} & set(rest):
        return f"effnetv2_jax {__version__}"
    for module in _values_of("import", rest):
        import_family(module)
    chosen = _values_of("config", rest)
    if {"--help", "-h", "-help"} & set(rest):
        return help_text(description, _define_flags())
    file = find_config_file(chosen[-1]) if chosen else None
    stated = file.load() if file else None
    values = _read_flags([program, *rest], stated)
    workdir, checkpoint = split_checkpoint(values.workdir)
    workdir = os.fspath(workdir_path(workdir)) if workdir else ""
    if checkpoint != "last" and values.mode != "eval":
        raise CommandError(
            f"--workdir={values.workdir} names a checkpoint, which --mode=eval can take; to start "
            f"from it in another directory, --config.init={values.workdir}"
        )
    notes: list[str] = []
    overrides = with_winner(read_overrides(rest), notes)
    if of_run := values.mode == "eval" and bool(workdir):
        workdir = os.fspath(winner_or_itself(workdir_path(workdir)))
        if file and stated:
            file.check_names(stated)
        config = config_of_run(workdir, stated)
        notes += left_out(config, stated, overrides, title=chosen[-1] if chosen else "")
    elif stated is None:
        raise CommandError("--config=FILE is needed, such as --config=configs/quickstart.py")
    else:
        config = stated
    before = dict(flatten(config.to_dict())) if file and not of_run else None
    shortened = file is not None and file.shortens and not of_run
    notes += adapt(config, overrides, shortened=shortened)
    assign(config, overrides)
    experiment = file.read(config) if file else from_config_dict(config)
    if of_run:
        check_network(experiment, overrides, network_of(f"workdir:{workdir}"), title=workdir)
    elif experiment.init:
        own = network_of(experiment.init)
        check_network(experiment, overrides, own, title="the run in config.init", adapted=True)
    free = values.mode in ("plan", "find_rate") or (values.mode == "eval" and experiment.init)
    if not (values.workdir or free):
        raise CommandError(f"--mode={values.mode} needs --workdir=DIR, the run's directory")
    if values.topology and values.mode != "plan":
        raise CommandError(f"--topology belongs to --mode=plan, not to --mode={values.mode}")
    if values.largest_batch and not values.topology:
        raise CommandError("--largest_batch needs --topology, the devices whose memory counts")
    if values.scaling and values.mode != "plan":
        raise CommandError(f"--scaling belongs to --mode=plan, not to --mode={values.mode}")
    return Command(
        mode=values.mode,
        experiment=experiment,
        workdir=workdir,
        checkpoint=checkpoint,
        topology=values.topology,
        largest_batch=values.largest_batch,
        scaling=values.scaling,
        config_file=chosen[-1] if chosen else "",
        changed=() if before is None else tuple(_changed(before, config)),
        notes=tuple(notes),
    )


def _changed(before: Mapping[str, Any], config: ml_collections.ConfigDict) -> Iterator[str]:
    """Which fields differ from what they were, as `field: old -> new`."""
    now = dict(flatten(config.to_dict()))
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, "absent"), now.get(name, "absent")
        if old != new:
            yield f"{name}: {old} -> {new}"


def _read_flags(
    arguments: Sequence[str], config: ml_collections.ConfigDict | None
) -> flags.FlagValues:
    """The flags besides those of the config.

    Args:
      config: whose fields may be meant by a flag that there is not; None where there is none.

    Raises:
      CommandError: a flag is unknown or has a bad value, or an argument is none.
    """
    values = _define_flags()
    others = [
        argument
        for argument in arguments
        if not argument.lstrip("-").startswith("config=") and not read_overrides([argument])
    ]
    try:
        left = values(others)[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        close = difflib.get_close_matches(name, ["config", "version", "help", *values], n=1)
        fields = meant(config, name) if config and not close else []
        found = [f"--{close[0]}"] if close else [f"--config.{path}" for path in fields]
        hint = f"did you mean {' or '.join(found)}?" if found else "--help lists what there is"
        raise CommandError(f"there is no flag --{name}; {hint}") from error
    except flags.Error as error:
        raise CommandError(" ".join(map(str, error.args))) from error
    if left:
        mode = f" (did you mean --mode={left[0]}?)" if left[0] in get_args(Mode) else ""
        raise CommandError(f"unexpected argument {left[0]!r}{mode}; flags are written --name=value")
    return values


def _values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """What a flag is given, each time it is."""
    names = (f"--{flag}=", f"-{flag}=")
    return [a.partition("=")[2] for a in arguments if a.startswith(names)]


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "import",
        [],
        "A module to import first, which registers a family of models; may be given several times.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir", "", "Where the run's checkpoints and logs are; local or gs://.", values
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        list(get_args(Mode)),
        "train: starts the run in --workdir or continues it. eval: evaluates its newest "
        "checkpoint, or the one of --workdir=RUN@best or RUN@STEP, and needs no --config; without "
        "--workdir, the weights in --config.init. plan: prints the stages and exits. find_rate: "
        "looks for a learning rate in a hundred steps, and writes the curve as "
        "learning_rates.json into --workdir if there is one.",
        values,
    )
    flags.DEFINE_string(
        "topology",
        "",
        "With --mode=plan: compiles every stage for these devices and prints memory, operations "
        "and memory traffic. `local`, or a TPU slice such as v5e:4x4, for which no TPU is needed.",
        values,
    )
    flags.DEFINE_bool(
        "largest_batch",
        False,
        "With --topology: also finds the largest batch per device that fits, by more compilations.",
        values,
    )
    flags.DEFINE_bool(
        "scaling",
        False,
        "With --mode=plan: also shows the family of networks that scaling makes of the table.",
        values,
    )
    return values
