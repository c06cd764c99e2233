"""The Python file that a command's config comes from."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

import effnetv2_jax
from effnetv2_jax import config as config_package
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config.reading import unknown_field
from effnetv2_jax.models.protocol import ModelConfig


class ConfigFile(NamedTuple):
    """`--config=FILE:ARGUMENT`."""

    path: Path
    argument: str | None

    @property
    def shortens(self) -> bool:
        """Whether the argument asks for a shortened run."""
        return "smoke" in (self.argument or "").split(",")

    def load(self) -> ml_collections.ConfigDict:
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
            return module.get_config(*([] if self.argument is None else [self.argument]))
        except TypeError as error:
            raise CommandError(f"{self.path}: {_explain(error)}") from error
        except (AttributeError, ValueError, OSError, ImportError) as error:
            raise CommandError(f"{self.path}: {error}") from error


def find_config_file(text: str) -> ConfigFile:
    """The file of that name, or the one of the package if there is none here.

    Args:
      text: `FILE` or `FILE:ARGUMENT`.

    Raises:
      CommandError: there is none; the message has those of the package.
    """
    name, colon, argument = text.partition(":")
    stated = argument if colon else None
    if Path(name).exists():
        return ConfigFile(Path(name), stated)
    package = Path(effnetv2_jax.__file__).parent
    # Beside the package in a clone, inside it when installed.
    shipped = [*(package.parent / "configs").glob("*.py"), *(package / "configs").glob("*.py")]
    for found in shipped:
        if found.name == Path(name).name:
            return ConfigFile(found, stated)
    known = sorted({path.name for path in shipped} - {"__init__.py"})
    raise CommandError(f"no config file {name}; the package has {', '.join(known)}")


def _explain(error: TypeError) -> str:
    """Adds the closest name to Python's complaint about an unknown keyword."""
    pattern = r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    match = re.match(pattern, str(error))
    kinds = vars(config_package) | {kind.__name__: kind for kind in ModelConfig.__subclasses__()}
    kind: Any = match and kinds.get(match[1])
    if not match or not dataclasses.is_dataclass(kind):
        return str(error)
    names = [field.name for field in dataclasses.fields(kind)]
    return unknown_field(match[2], names, where=match[1])
