"""Families of networks from elsewhere, which a command line names by their modules."""

import importlib

from effnetv2_jax.cli.errors import CommandError


def import_family(module: str) -> None:
    """Imports a module that registers a family, for `--import=MODULE`.

    Raises:
      CommandError: it cannot be imported.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise CommandError(f"--import={module}: {error}") from error
