"""The command line of a search, with errors that name the flag or field."""

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Sequence
from typing import Any, Literal

import ml_collections

from effnetv2_jax import __version__
from effnetv2_jax.cli.arguments import normalize
from effnetv2_jax.cli.config_file import ConfigFile, find_config_file
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.families import import_family
from effnetv2_jax.cli.help import entry
from effnetv2_jax.cli.overrides import adapt, assign, check_path, read_overrides
from effnetv2_jax.cli.values import read_tuple, read_value
from effnetv2_jax.cli.winner import with_winner
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.fields import fields_of
from effnetv2_jax.config.reading import from_config_dict, hint_of, to_config_dict
from effnetv2_jax.nas.architecture import canonical
from effnetv2_jax.nas.config import Search, check
from effnetv2_jax.nas.space import Choice, choice
from effnetv2_jax.outputs.workdir import workdir_path

Mode = Literal["search", "plan"]
_STATED_ELSEWHERE = ("experiment", "space", "imports")
"""Fields of a search that other flags state."""
_FLAGS = {
    "--config=FILE": "The search: a Python file whose get_config() returns a Search; or an "
    "Experiment, for which --choices says what is chosen.",
    "--workdir=STUDY": "Where the study is; local or gs://.",
    "--mode=search | plan": "search: starts the search in --workdir or continues it. plan: prints "
    "the space, what a trial is and how long the trials take, and exits.",
    "--choices.FIELD=A,B,C": "Choose among these values of a field of the experiment, such as "
    "--choices.optimizer.learning_rate=0.05,0.1,0.2; besides what the file chooses, or in place of "
    "its choice for that field.",
    "--config.FIELD=VALUE": "A field of the experiment, as for effnetv2_jax.main.",
    "--import=MODULE": "A module to import first, which registers a family of models; may be given "
    "several times.",
    "--help, --version": "Print this text, or the version, and exit.",
}


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """What was asked for."""

    mode: Mode
    search: Search
    workdir: str
    """Empty only for `plan`."""
    notes: tuple[str, ...] = ()
    """What the overrides brought along that they do not say themselves."""


def parse_search(arguments: Sequence[str], *, description: str = "") -> SearchCommand | str:
    """Reads a command line, program name first, and its config file with all overrides.

    Returns:
      The command, or the text of `--help` or `--version` if that was asked for.

    Raises:
      CommandError: a flag or field is unknown or has a bad value, or there is no such file.
      ConfigError: the search makes no sense.
      WeightsError, WorkdirError: a run that an override names cannot be read.
    """
    rest = list(normalize(arguments[1:]))
    if {"--version", "-version"} & set(rest):
        return f"effnetv2_jax {__version__}"
    if {"--help", "-h", "-help"} & set(rest):
        return _help(description)
    flags = [_split(argument) for argument in rest]
    imports = [value for name, value in flags if name == "import"]
    for module in imports:
        import_family(module)
    plain = {name: value for name, value in flags if name in ("config", "workdir", "mode")}
    mode = plain.get("mode", "search")
    if mode not in typing.get_args(Mode):
        raise CommandError(f"--mode must be search or plan, not {mode!r}")
    if "config" not in plain:
        raise CommandError("--config=FILE is needed, such as --config=configs/search_quickstart.py")
    workdir = plain.get("workdir", "")
    if not workdir and mode == "search":
        raise CommandError("--workdir=STUDY is needed, the study's directory")
    file = find_config_file(plain["config"])
    search = _of_file(file)
    notes: list[str] = []
    search = dataclasses.replace(
        search, experiment=_overridden(search.experiment, rest, file, notes)
    )
    search = dataclasses.replace(
        search,
        space=_with_choices(search, flags),
        imports=tuple(imports) or search.imports,
        **_fields(flags),
    )
    check(search)
    return SearchCommand(
        mode=typing.cast(Mode, mode),
        search=search,
        workdir=os.fspath(workdir_path(workdir)) if workdir else "",
        notes=tuple(notes),
    )


def _split(argument: str) -> tuple[str, str]:
    """The name and the value of a flag.

    Raises:
      CommandError: it is none, or there is none of that name.
    """
    found = re.fullmatch(r"--?([^=]+)(?:=(.*))?", argument, re.DOTALL)
    if found is None:
        raise CommandError(f"unexpected argument {argument!r}; flags are written --name=value")
    name, value = found[1], found[2]
    if read_overrides([argument]):
        return name, value or ""
    known = ("config", "workdir", "mode", "import")
    if name not in known and not name.startswith(("search.", "choices.")):
        options = [*known, *(f"search.{field}" for field in _hints())]
        close = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean --{close[0]}?" if close else "--help lists what there is"
        raise CommandError(f"there is no flag --{name}; {hint}")
    if value is None:
        raise CommandError(f"--{name} lacks its value: --{name}=VALUE")
    return name, value


def _of_file(file: ConfigFile) -> Search:
    found = file.execute()
    if isinstance(found, Search):
        return found
    if isinstance(found, ml_collections.ConfigDict):
        found = file.read(found)
    if not isinstance(found, Experiment):
        raise CommandError(
            f"{file.path}: get_config returned {type(found).__name__}; it has to return an "
            "effnetv2_jax.nas.Search or an effnetv2_jax.config.Experiment"
        )
    return Search(experiment=found, space=())


def _overridden(
    experiment: Experiment, arguments: Sequence[str], file: ConfigFile, notes: list[str]
) -> Experiment:
    overrides = with_winner(read_overrides(arguments), notes)
    config = to_config_dict(experiment)
    notes += adapt(config, overrides, shortened=file.shortens)
    assign(config, overrides)
    return from_config_dict(config)


def _with_choices(search: Search, flags: Sequence[tuple[str, str]]) -> tuple[Choice, ...]:
    stated = {
        name.removeprefix("choices."): value for name, value in flags if name.startswith("choices.")
    }
    kept = [each for each in search.space if not set(each.fields) & stated.keys()]
    model = canonical(search.experiment.model)
    config = to_config_dict(dataclasses.replace(search.experiment, model=model))
    return (*kept, *(_choice(config, field, text) for field, text in stated.items()))


def _choice(config: ml_collections.ConfigDict, field: str, text: str) -> Choice:
    """Values with commas between, each as `--config.FIELD` takes it; or a tuple in brackets."""
    check_path(config, field)
    if text.strip()[:1] in ("(", "["):
        return choice(field, *read_tuple(text))
    hint = hint_of(config, field)
    return choice(field, *(read_value(hint, part.strip(), field) for part in text.split(",")))


def _fields(flags: Sequence[tuple[str, str]]) -> dict[str, Any]:
    hints, found = _hints(), {}
    for name, value in flags:
        field = name.removeprefix("search.")
        if field == name:
            continue
        if field not in hints:
            close = difflib.get_close_matches(field, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(hints)}"
            raise CommandError(f"search has no field {field!r}; {hint}")
        try:
            found[field] = read_value(hints[field], value, field)
        except CommandError as error:
            raise CommandError(str(error).replace("config.", "search.", 1)) from error
        options = typing.get_args(hints[field])
        if typing.get_origin(hints[field]) is Literal and found[field] not in options:
            raise CommandError(f"search.{field} must be one of {', '.join(options)}, not {value!r}")
    return found


def _hints() -> dict[str, Any]:
    hints = typing.get_type_hints(Search)
    names = [field.name for field in dataclasses.fields(Search)]
    return {name: hints[name] for name in names if name not in _STATED_ELSEWHERE}


def _help(description: str) -> str:
    lines = [description.strip(), "", "Flags:"]
    for title, text in _FLAGS.items():
        lines += entry(title, text)
    lines += ["", "Fields of the search, as --search.FIELD=VALUE, with their defaults:"]
    for field in fields_of(Search):
        if field.name not in _STATED_ELSEWHERE:
            lines += entry(f"{field.name} = {field.default}", field.meaning.replace("`", ""))
    return "\n".join(lines)
