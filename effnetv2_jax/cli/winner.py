"""`--config.model.stages=STUDY`: the network that a search found."""

from collections.abc import Sequence
from typing import Any

from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.overrides import Override
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import model_config
from effnetv2_jax.outputs.workdir import WorkdirError, read_winner, workdir_path

_TABLE = "model.stages"
_WITH_IT = ("stem", "head")
"""Fields that belong to a table that is taken as it stands."""


def with_winner(overrides: Sequence[Override], notes: list[str]) -> list[Override]:
    """The overrides with the winner's table in the place of its study.

    Args:
      overrides: of the command line.
      notes: is told what came along, in a sentence.

    Raises:
      CommandError: there is no network with stages in the study.
      WorkdirError: what the study says of its winner makes no sense.
    """
    found = []
    stated = {override.path for override in overrides}
    for override in overrides:
        if override.path != _TABLE or not override.value or override.value.strip()[:1] in "([{":
            found.append(override)
            continue
        fields = _winner(override.value)
        if fields is None:
            found.append(override)
            continue
        found.append(Override(_TABLE, repr(tuple(fields["stages"]))))
        ends = [name for name in _WITH_IT if f"model.{name}" not in stated]
        found += [Override(f"model.{name}", str(fields[name])) for name in ends]
        values = " and ".join(f"{name}={fields[name]}" for name in ends)
        notes.append(
            f"config.{_TABLE}={override.value}: the table that won there"
            + (f", with its {values}" if ends else "")
        )
    return found


def _winner(study: str) -> dict[str, Any] | None:
    """The fields of the model that won; None where the text names no study."""
    try:
        path = workdir_path(study)
    except WorkdirError:
        return None
    winner = read_winner(path)
    if winner is None:
        if path.is_dir():
            raise CommandError(
                f"config.{_TABLE}={study}: there is no best.json yet; a search writes it when its "
                "first trial is done"
            )
        return None
    try:
        model_config(winner)
    except ConfigError as error:
        raise CommandError(f"config.{_TABLE}={study}: {error}") from error
    fields: dict[str, Any] = winner["model"]
    if not fields.get("stages"):
        raise CommandError(f"config.{_TABLE}={study}: the network that won there has no stages")
    return fields
