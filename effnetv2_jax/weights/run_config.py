"""What a run says of its weights, read without JAX and without the weights."""

from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict, read_model
from effnetv2_jax.models.libraries import interchanges
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.registry import UnknownModelError, family_of
from effnetv2_jax.outputs.workdir import (
    WorkdirError,
    read_class_names,
    read_config,
    read_preprocessing,
)
from effnetv2_jax.outputs.writers import EVENTS, read_log
from effnetv2_jax.preprocessing import Preprocessing
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
    workdir = epath.Path(workdir).expanduser()
    try:
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
    except (WorkdirError, ConfigError) as error:
        raise WeightsError(f"{workdir}: {error}") from error


def run_model_config(weights: str) -> ModelConfig | None:
    """The network that weights are for, where they are a run's or in our own format.

    Args:
      weights: as for `Experiment.init`; nothing is downloaded.

    Raises:
      WeightsError: the run or folder is none, or its model is of a family that is not here.
    """
    kind, _, rest = weights.partition(":")
    if is_tag(weights) or kind in ("hub", "http", "https"):
        return None
    if kind == "workdir" or "://" in weights:
        return read_run(rest if kind == "workdir" else weights).model
    folder = Path(rest if kind == "file" else weights).expanduser()
    if (run := run_at(folder)) is not None:
        return read_run(run[0]).model
    config = folder / CONFIG
    return read_card(config, str(folder)).config if config.is_file() else None


def run_at(folder: Path) -> tuple[Path, int | None] | None:
    """The run, and the step of its checkpoint, that a folder is one of; None if it is none."""
    if (folder / "checkpoints").is_dir():
        return folder, None
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        return folder.parent.parent, int(folder.name)
    return None


def is_tag(word: str) -> bool:
    """Whether any model has published weights of that tag."""
    return any(
        interchange.published(name, word) is not None
        for _, interchange in interchanges()
        for name in interchange.tags
    )


def _model(workdir: epath.Path, config: Any) -> ModelConfig:
    fields = config.get("model") if isinstance(config, dict) else None
    name = fields.get("name") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or not isinstance(name, str):
        raise WeightsError(f"{workdir}: config.json does not say which model it is of")
    try:
        family_of(name)
    except UnknownModelError:
        recorded = [entry["model"] for entry in read_log(workdir / EVENTS) if "model" in entry]
        last = recorded[-1] if recorded and isinstance(recorded[-1], dict) else {}
        family, module = last.get("family"), last.get("module")
        raise unknown_model(str(workdir), name, family=family, module=module) from None
    return read_model(fields)
