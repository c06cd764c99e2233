"""What a run says of its weights, read without JAX and without the weights."""

from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict, model_config
from effnetv2_jax.models.libraries import is_tag
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.registry import UnknownModelError, family_of
from effnetv2_jax.outputs.workdir import (
    WorkdirError,
    find_run,
    read_class_names,
    read_config,
    read_preprocessing,
    workdir_path,
)
from effnetv2_jax.outputs.writers import EVENTS, read_log
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.system.paths import local_path
from effnetv2_jax.weights.card import read_card, unknown_model
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.hub import CONFIG


class RunConfig(NamedTuple):
    """What a run says of its weights."""

    workdir: epath.Path
    model: ModelConfig
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    averaged: bool
    """Whether it has averaged weights beside those trained last."""


def read_run(workdir: epath.PathLike) -> RunConfig:
    """Reads what a run says of its weights.

    Args:
      workdir: the run's, local or `gs://`.

    Raises:
      WeightsError: there is no run, or its model is of a family that is not here.
    """
    try:
        workdir = workdir_path(workdir)
        config = read_config(workdir)
        model = _model(workdir, config)
        preprocessing = read_preprocessing(workdir)
        if preprocessing is None:
            own = family_of(model.name).variants[model.name]
            preprocessing = from_config_dict(config).preprocessing(own)
        return RunConfig(
            workdir=workdir,
            model=model,
            class_names=read_class_names(workdir),
            preprocessing=preprocessing,
            averaged=config.get("ema_decay") is not None,
        )
    except ConfigError as error:
        raise WeightsError(f"{workdir}: {error}") from error
    except WorkdirError as error:
        raise WeightsError(str(error)) from error


def network_of(weights: str) -> ModelConfig | None:
    """The network of weights that say so: a run's, or those of a folder with a `config.json`.

    Args:
      weights: as for `Experiment.init`.

    Returns:
      Its config; None for other weights, and for those that would have to be downloaded.

    Raises:
      WeightsError: the run or folder cannot be read, or its model is of a family that is not here.
    """
    if is_tag(weights):
        return None
    try:
        if (run := find_run(weights)) is not None:
            return _model(run.workdir, read_config(run.workdir))
    except ConfigError as error:
        raise WeightsError(f"{weights}: {error}") from error
    except WorkdirError as error:
        raise WeightsError(str(error)) from error
    folder = Path(local_path(weights.removeprefix("file:")))
    card = folder / CONFIG
    if not card.is_file():
        return None
    told = read_card(card, str(folder))
    if told.config is not None or told.name is None:
        return told.config
    return family_of(told.name).config(name=told.name, **told.fields)


def _model(workdir: epath.Path, config: dict[str, Any]) -> ModelConfig:
    try:
        name = config["model"]["name"]
        family_of(name)
    except (KeyError, TypeError):
        raise WeightsError(f"{workdir}: its config.json does not name its model") from None
    except UnknownModelError:
        recorded = [entry.get("model") for entry in read_log(workdir / EVENTS)]
        last = next((entry for entry in reversed(recorded) if isinstance(entry, dict)), {})
        family, module = last.get("family"), last.get("module")
        raise unknown_model(str(workdir), name, family=family, module=module) from None
    return model_config(config)
