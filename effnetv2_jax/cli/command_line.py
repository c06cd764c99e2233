"""The command line as a checked experiment, with errors that name the flag or field."""

import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

import effnetv2_jax
from effnetv2_jax.config import experiment as experiment_module
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict, unknown_field

Mode = Literal["train", "eval", "plan"]


_CONFIG_FLAG = re.compile(r"(--?config=)([^:]+)(:.*)?")


class CommandError(ValueError):
    """A command line that cannot be understood; the message says what is wrong with it."""


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


def parse(arguments: Sequence[str], *, description: str = "") -> Command | str:
    """Reads a command line, program name first, and its config file with all overrides.

    Returns:
      The command, or the help text if that was asked for.

    Raises:
      CommandError: a flag or config field is unknown or has a bad value, or there is no such
        config file.
      ConfigError: the config makes no sense.
    """
    arguments = [_find_config(argument) for argument in arguments]
    values = _define_flags(arguments)
    if {"--help", "-h"} & set(arguments):
        return f"{description}\n{values.main_module_help() or values.get_help()}"
    config = _load_config(arguments)
    emptied, others = [], []
    for argument in arguments:
        match = re.match(r"--?config\.([^=]+)(?:=(.*)|$)", argument)
        if match:
            _check_field(config, match[1])
        if match and match[2] == "None":
            emptied.append(match[1])
        else:
            others.append(argument)
    try:
        rest = values(others)[1:]
        for path in emptied:
            # The flags of optional fields take numbers only.
            config_path.set_value(path, values.config, None)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        # Not str(error), which puts a KeyError's message in quotes.
        raise CommandError(" ".join(map(str, error.args))) from error
    if rest:
        raise CommandError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
    experiment = from_config_dict(values.config)
    if not (values.workdir or values.mode == "plan" or (values.mode == "eval" and experiment.init)):
        raise CommandError(f"--mode={values.mode} needs --workdir=DIR, the run's directory")
    if values.topology and values.mode != "plan":
        raise CommandError(f"--topology belongs to --mode=plan, not to --mode={values.mode}")
    if values.largest_batch and not values.topology:
        raise CommandError("--largest_batch needs --topology, the devices whose memory counts")
    return Command(values.mode, experiment, values.workdir, values.topology, values.largest_batch)


def _define_flags(arguments: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment: path of a Python file with get_config(), and after a colon its argument. "
        "Fields are overridden as in --config.epochs=10 or --config.stages[0].image_size=96.",
        flag_values=values,
        sys_argv=list(arguments),
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


def _find_config(argument: str) -> str:
    """Points `--config=FILE` at the file of that name in the package, if there is none here."""
    match = _CONFIG_FLAG.fullmatch(argument)
    if not match or Path(match[2]).exists():
        return argument
    package = Path(effnetv2_jax.__file__).parent
    # Beside the package in a clone, inside it when installed.
    shipped = [*(package.parent / "configs").glob("*.py"), *(package / "configs").glob("*.py")]
    for found in shipped:
        if found.name == Path(match[2]).name:
            return f"{match[1]}{found}{match[3] or ''}"
    known = sorted({path.name for path in shipped} - {"__init__.py"})
    raise CommandError(f"no config file {match[2]}; the package has {', '.join(known)}")


def _load_config(arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """The config as its file has it, overrides left out."""
    chosen = [match for a in arguments[1:] if (match := _CONFIG_FLAG.fullmatch(a))]
    if not chosen:
        raise CommandError("--config=FILE is needed, such as --config=configs/quickstart.py")
    _, path, argument = chosen[-1].groups()
    # Not through the flag, which buries a config file's complaint in a traceback.
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(*([argument[1:]] if argument else []))
    except TypeError as error:
        raise CommandError(f"{path}: {_explain(error)}") from error
    except (AttributeError, ValueError, OSError) as error:
        raise CommandError(f"{path}: {error}") from error


def _explain(error: TypeError) -> str:
    """Adds the closest name to Python's complaint about an unknown keyword."""
    pattern = r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    match = re.match(pattern, str(error))
    kind = match and getattr(experiment_module, match[1], None)
    if not match or not inspect.isclass(kind):
        return str(error)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return unknown_field(match[2], names, where=match[1])


def _check_field(config: Any, path: str) -> None:
    """Raises a CommandError that names the closest field if `path` leads nowhere."""
    where = "config"
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if name:
            known = list(config.keys()) if isinstance(config, ml_collections.ConfigDict) else []
            if name not in known:
                raise CommandError(unknown_field(name, known, where=where))
            config, where = config[name], f"{where}.{name}"
        else:
            if not isinstance(config, tuple | list) or int(index) >= len(config):
                count = len(config) if isinstance(config, tuple | list) else "no"
                raise CommandError(f"{where} has {count} entries, and so no [{index}]")
            config, where = config[int(index)], f"{where}[{index}]"
