"""A candidate: the experiment with what was chosen put into its fields."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from effnetv2_jax.config.differences import flatten, may_differ
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict, path_steps
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.nas.architecture import canonical, digest, without_idle_squeeze


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """An experiment with other values in some of its fields.

    Where a setting reaches into the table of stages, that is the table of the canonical form, all
    scales multiplied out; squeeze-and-excitation is 0 in blocks that have nothing to squeeze.

    Args:
      settings: by field, such as `model.stages[3].kernel`.

    Raises:
      ConfigError: there is no such field, or the value is not one of its type or range.
    """
    if any(path.startswith("model.stages[") for path in settings):
        experiment = dataclasses.replace(experiment, model=canonical(experiment.model))
    config = _mutable(dataclasses.asdict(experiment))
    for path, value in settings.items():
        _set(config, path, value)
    if isinstance(experiment.model, EfficientNetConfig):
        config["model"] = without_idle_squeeze(config["model"])
    return from_config_dict(config)


def candidate_hash(experiment: Experiment) -> str:
    """16 hexadecimal digits: equal for candidates whose training is the same in all.

    The network counts in its canonical form, see `architecture`; fields that a continued run may
    change do not count.
    """
    model = dataclasses.asdict(canonical(experiment.model))
    fields = flatten(dataclasses.asdict(experiment) | {"model": model})
    return digest({name: value for name, value in fields if not may_differ(name)})


def _mutable(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _mutable(value) for name, value in node.items()}
    return [_mutable(entry) for entry in node] if isinstance(node, tuple | list) else node


def _set(config: Any, path: str, value: Any) -> None:
    steps = [name or int(index) for name, index in path_steps(path)]
    where = "config"
    for step in steps[:-1]:
        config, where = _enter(config, step, where), _longer(where, step)
    _enter(config, steps[-1], where)
    config[steps[-1]] = value


def _enter(config: Any, step: str | int, where: str) -> Any:
    """The part of a config that a step leads to."""
    if isinstance(step, int):
        if not isinstance(config, list) or not -len(config) <= step < len(config):
            count = len(config) if isinstance(config, list) else "no"
            raise ConfigError(f"{where} has {count} entries, and so no [{step}] to choose")
    elif not isinstance(config, dict) or step not in config:
        known = config if isinstance(config, dict) else {}
        close = difflib.get_close_matches(step, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where} has no field {step!r} to choose{hint}")
    return config[step]


def _longer(where: str, step: str | int) -> str:
    return f"{where}[{step}]" if isinstance(step, int) else f"{where}.{step}"
