"""The command line as a checked experiment, with errors that name the flag or field."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from effnetv2_jax.cli.config_file import find_config_file
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.families import import_family
from effnetv2_jax.cli.overrides import (
    adapt,
    check_network_of_run,
    normalize,
    read_overrides,
    set_tables,
)
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict

Mode = Literal["train", "eval", "plan"]


@dataclasses.dataclass(frozen=True)
class Command:
    """What was asked for."""

    mode: Mode
    experiment: Experiment
    workdir: str
    """Empty only for `plan`, and for `eval` of the weights in `experiment.init`."""
    topology: str = ""
    """`plan`: compiles every stage for these devices."""
    largest_batch: bool = False
    """`plan` for a topology: also finds the largest batch that fits."""
    notes: tuple[str, ...] = ()
    """What the overrides brought along that they do not say themselves."""


def parse(arguments: Sequence[str], *, description: str = "") -> Command | str:
    """Reads a command line, program name first, and its config file with all overrides.

    Modules that `--import` names are imported.

    Returns:
      The command, or the help text if that was asked for.

    Raises:
      CommandError: a flag or config field is unknown or has a bad value, or there is no such
        config file or module.
      ConfigError: the config makes no sense.
      WeightsError: the run to start from cannot be read.
    """
    program, *rest = map(normalize, arguments)
    if {"--help", "-h"} & set(rest):
        values = _define_flags()
        flags.DEFINE_string(
            "config",
            None,
            "The experiment: path of a Python file with get_config(), and after a colon its "
            "argument. Fields are overridden as in --config.epochs=10 or "
            "--config.stages[0].image_size=96.",
            values,
        )
        return f"{description}\n{values.main_module_help() or values.get_help()}"
    for module in _values_of("import", rest):
        import_family(module)
    chosen = _values_of("config", rest)
    if not chosen:
        raise CommandError("--config=FILE is needed, such as --config=configs/quickstart.py")
    file = find_config_file(chosen[-1])
    config = file.load()
    overrides = read_overrides(rest)
    notes = tuple(adapt(config, overrides, shortened=file.shortens))
    tables = set_tables(config, overrides)
    emptied = {override.path for override in overrides if override.value == "None"}

    values = _define_flags()
    given = [
        argument
        for argument in rest
        if not argument.lstrip("-").startswith("config=")
        and not any(override.path in tables | emptied for override in read_overrides([argument]))
    ]
    try:
        config_flags.DEFINE_config_dict(
            "config", config, "The experiment.", flag_values=values, sys_argv=[program, *given]
        )
        left = values([program, *given])[1:]
        for path in emptied:
            # The flags of optional fields take numbers only.
            config_path.set_value(path, values.config, None)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        # Not str(error), which puts a KeyError's message in quotes.
        raise CommandError(" ".join(map(str, error.args))) from error
    if left:
        raise CommandError(f"unexpected argument {left[0]!r}; flags are written --name=value")
    experiment = from_config_dict(values.config)
    if experiment.init:
        check_network_of_run(experiment, overrides)
    if not (values.workdir or values.mode == "plan" or (values.mode == "eval" and experiment.init)):
        raise CommandError(f"--mode={values.mode} needs --workdir=DIR, the run's directory")
    if values.topology and values.mode != "plan":
        raise CommandError(f"--topology belongs to --mode=plan, not to --mode={values.mode}")
    if values.largest_batch and not values.topology:
        raise CommandError("--largest_batch needs --topology, the devices whose memory counts")
    return Command(
        values.mode, experiment, values.workdir, values.topology, values.largest_batch, notes
    )


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
        ["train", "eval", "plan"],
        "train: starts the run in --workdir or continues it. eval: evaluates its newest "
        "checkpoint, or without --workdir the weights in --config.init. plan: prints the stages "
        "and exits.",
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
    return values
