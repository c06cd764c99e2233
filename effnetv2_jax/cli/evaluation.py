"""What `--mode=eval --workdir=RUN` evaluates: the run's own config, on the data that is stated."""

from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from etils import epath

from effnetv2_jax.cli.overrides import Override
from effnetv2_jax.config.differences import flatten
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.outputs.workdir import read_config
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.run_config import read_run

_OF_WEIGHTS = ("interpolation", "mean", "std")
"""Fields of `data` that belong to the run's weights."""
_OF_SETS = ("batch_size", "sets")
"""Fields of `evaluation` that belong to what is evaluated on."""
_USED = ("data", "evaluation", "distributed")
_MATTER = ("model.name", "model.", "data.", "loss", "evaluation.image_size", "evaluation.resize")
"""What would make another evaluation, the most important first."""
_NAMED = 5


def config_of_run(
    workdir: epath.PathLike, stated: ml_collections.ConfigDict | None
) -> ml_collections.ConfigDict:
    """The config that a run is evaluated with, before overrides.

    Args:
      workdir: the run's.
      stated: another config, whose data is evaluated on; None evaluates on the run's.

    Raises:
      WeightsError: there is no run, or its model is of a family that is not here.
    """
    run = read_run(workdir)
    try:
        config = to_config_dict(from_config_dict(read_config(run.workdir)))
    except ConfigError as error:
        raise WeightsError(f"{run.workdir}: {error}") from error
    with config.ignore_type():
        config.init = ""  # Its checkpoints have what came of it.
        if stated is not None:
            data = stated.get("data", {})
            same = data.get("source") == config.data.source
            for name, value in data.items():
                # A recipe that leaves the place to the command line does not mean another one.
                open_ = name in ("path", "name") and same and not value
                if name in config.data and name not in _OF_WEIGHTS and not open_:
                    config.data[name] = value
            for name in _OF_SETS:
                own = config.evaluation[name]
                config.evaluation[name] = stated.get("evaluation", {}).get(name, own)
    return config


def left_out(
    used: ml_collections.ConfigDict,
    stated: ml_collections.ConfigDict | None,
    overrides: Sequence[Override],
    *,
    title: str,
) -> Iterator[str]:
    """Says what of a config file and of overrides an evaluation of a run does not use.

    Args:
      used: what `config_of_run` made of the file's.
      stated: the file's; None where there is none.
      overrides: of the command line.
      title: of the file.
    """
    if stated is not None:
        own, theirs = (dict(flatten(_plain(config))) for config in (used, stated))
        differing = [
            name
            for name in sorted(theirs, key=_rank)
            if _rank(name) < len(_MATTER) and theirs[name] != own.get(name, theirs[name])
            if theirs[name] != ""
        ]
        if differing:
            more = ", and more" if len(differing) > _NAMED else ""
            yield (
                f"{title}: of it only the data is used; the run has its own "
                f"{', '.join(differing[:_NAMED])}{more}"
            )
    unused = [
        f"config.{override.path}"
        for override in overrides
        if override.group not in (*_USED, "model")
    ]
    if unused:
        yield f"not used in the evaluation of a run: {', '.join(unused)}"


def _rank(name: str) -> int:
    """How early a field stands in `_MATTER`; behind all of it if it does not."""
    found = (index for index, group in enumerate(_MATTER) if name.startswith(group))
    return next(found, len(_MATTER))


def _plain(config: Any) -> Any:
    """A config as dicts and tuples."""
    if isinstance(config, ml_collections.ConfigDict):
        return {name: _plain(value) for name, value in config.items()}
    return tuple(map(_plain, config)) if isinstance(config, tuple | list) else config
