"""The Python file that a command's config comes from."""

import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import re
import traceback
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

import effnetv2_jax
from effnetv2_jax import config as config_package
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import (
    UnknownFieldError,
    from_config_dict,
    to_config_dict,
    unknown_field,
)
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.progressive import Stage
from effnetv2_jax.system.paths import local_path


class ConfigFile(NamedTuple):
    """`--config=FILE:ARGUMENT`."""

    path: Path
    argument: str | None

    @property
    def shortens(self) -> bool:
        """Whether the argument asks for a shortened run."""
        return "smoke" in (self.argument or "").split(",")

    def load(self) -> ml_collections.ConfigDict:
        """Executes the file, once, and returns the experiment of its `get_config` as a ConfigDict.

        Raises:
          CommandError: the file cannot be executed, or does not take the argument.
        """
        config = self.execute()
        if isinstance(config, Experiment):
            return to_config_dict(config)
        if isinstance(config, ml_collections.ConfigDict):
            return config
        if type(config).__name__ == "Search":
            raise CommandError(
                f"{self.path} is a search: python -m effnetv2_jax.search --config={self.path}"
            )
        raise CommandError(
            f"{self.path}: get_config returned {type(config).__name__}; it has to return an "
            "effnetv2_jax.config.Experiment, or to_config_dict of one"
        )

    def execute(self) -> Any:
        """Executes the file, once, and returns what its `get_config` does.

        Raises:
          CommandError: the file cannot be executed, or does not take the argument.
        """
        spec = importlib.util.spec_from_file_location("config", self.path)
        if spec is None or spec.loader is None:
            raise CommandError(f"{self.path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise self._fault(error) from error
        if not callable(getattr(module, "get_config", None)):
            raise CommandError(
                f"{self.path} has no function get_config, which makes the experiment"
            )
        if self.argument and not inspect.signature(module.get_config).parameters:
            raise CommandError(
                f"{self.path}: its get_config takes no argument, and so no {self.argument!r}"
            )
        try:
            return module.get_config(*([] if self.argument is None else [self.argument]))
        except Exception as error:
            raise self._fault(error) from error

    def read(self, config: ml_collections.ConfigDict) -> Experiment:
        """The experiment of its config, with overrides.

        Raises:
          CommandError: the file states a field that there is not.
          ConfigError: another fault; see `from_config_dict`.
        """
        try:
            return from_config_dict(config)
        except UnknownFieldError as error:
            stated = re.compile(rf"\b{re.escape(error.field)}\b")
            lines = enumerate(self.path.read_text(errors="replace").splitlines(), 1)
            at = next((f":{number}" for number, line in lines if stated.search(line)), "")
            raise CommandError(f"{self.path}{at}: {error}") from error

    def check_names(self, config: ml_collections.ConfigDict) -> None:
        """Raises a CommandError if its config has an unknown field, whatever else it may lack."""
        with contextlib.suppress(ConfigError):
            self.read(config)

    def _fault(self, error: Exception) -> CommandError:
        """What is wrong with the file, in one line that begins with where."""
        line = None
        frames = list(traceback.walk_tb(error.__traceback__))
        if isinstance(error, SyntaxError):
            line = error.lineno
        else:
            own = [number for frame, number in frames if _is(frame, self.path)]
            line = own[-1] if own else None
        where = f"{self.path}:{line}" if line else str(self.path)
        return CommandError(f"{where}: {_explain(error, [frame for frame, _ in frames])}")


def _is(frame: types.FrameType, path: Path) -> bool:
    return frame.f_code.co_filename == str(path)


def _names_of(node: Any, config: Any, name: str) -> Iterator[str]:
    """What leads to a part of a config, such as `config.model`."""
    if config is node:
        yield name
    if isinstance(config, ml_collections.ConfigDict):
        for field, value in config.items():
            yield from _names_of(node, value, f"{name}.{field}")
    elif isinstance(config, tuple | list):
        for index, value in enumerate(config):
            yield from _names_of(node, value, f"{name}[{index}]")


def find_config_file(text: str) -> ConfigFile:
    """The file of that name, or the one of the package if there is none here.

    Args:
      text: `FILE` or `FILE:ARGUMENT`.

    Raises:
      CommandError: there is none; the message has those of the package.
    """
    text = local_path(text)
    name, colon, argument = text.partition(":")
    stated = argument if colon else None
    if not name:
        raise CommandError(
            "--config= names no file; give one, as in --config=configs/quickstart.py"
        )
    if Path(name).is_dir():
        raise CommandError(f"--config={name} is a folder; name a Python file in it")
    if Path(name).exists():
        return ConfigFile(Path(name), stated)
    package = Path(effnetv2_jax.__file__).parent
    # Beside the package in a clone, inside it when installed.
    shipped = [*(package.parent / "configs").glob("*.py"), *(package / "configs").glob("*.py")]
    if Path(name).parent.as_posix() in (".", "configs"):
        for found in shipped:
            if found.name == Path(name).name:
                return ConfigFile(found, stated)
    known = sorted({path.name for path in shipped} - {"__init__.py"})
    close = difflib.get_close_matches(Path(name).name, known, n=1)
    hint = f" (did you mean configs/{close[0]}?)" if close else ""
    raise CommandError(f"no config file {name}{hint}; the package has {', '.join(known)}")


def _explain(error: Exception, frames: Sequence[types.FrameType]) -> str:
    """What an error says, with the closest name where one is unknown."""
    if isinstance(error, TypeError) and (message := _unknown_keyword(error)):
        return message
    if isinstance(error, AttributeError | KeyError) and frames:
        # ml_collections has it in several lines, with all fields and their values.
        node = frames[-1].f_locals.get("self")
        name = re.match(r"\W*(?:Key\W+)?(\w+)", str(error.args[0]))
        if isinstance(node, ml_collections.ConfigDict) and name:
            values = [pair for frame in frames[:-1] for pair in frame.f_locals.items()]
            places = (place for key, value in values for place in _names_of(node, value, key))
            where = next(places, "the config")
            return unknown_field(name[1], map(str, node.keys()), where=where)
    if isinstance(error, AttributeError) and dataclasses.is_dataclass(error.obj):
        names = [field.name for field in dataclasses.fields(error.obj)]
        if error.name is not None and error.name not in names:
            return unknown_field(error.name, names, where=type(error.obj).__name__)
    text = " ".join(str(error.args[0] if error.args else error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _unknown_keyword(error: TypeError) -> str:
    """Python's complaint about an unknown keyword, with the closest one; empty for others."""
    pattern = r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    match = re.match(pattern, str(error))
    kinds = vars(config_package) | {kind.__name__: kind for kind in ModelConfig.__subclasses__()}
    kinds["Stage"] = Stage
    kind: Any = match and kinds.get(match[1])
    if not match or not dataclasses.is_dataclass(kind):
        return ""
    names = [field.name for field in dataclasses.fields(kind)]
    return unknown_field(match[2], names, where=match[1])
