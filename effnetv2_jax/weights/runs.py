"""Weights of a training run of our own."""

from typing import Any

import jax
from etils import epath
from flax import traverse_util

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.libraries import OURS
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.checkpoints import CheckpointError, Checkpoints
from effnetv2_jax.outputs.workdir import (
    WorkdirError,
    read_class_names,
    read_config,
    read_preprocessing,
)
from effnetv2_jax.parallel.mesh import make_mesh, replicated
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.card import FIELDS
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.found import Arrays, Found


def find_run(workdir: epath.PathLike, *, step: int | None = None) -> Found:
    """The weights of a run: averaged ones where it has them, of its newest checkpoint.

    Args:
      workdir: the run's, local or `gs://`.
      step: another checkpoint.

    Raises:
      WeightsError: there is no run.
    """
    workdir = epath.Path(workdir).expanduser()
    try:
        experiment = from_config_dict(read_config(workdir))
        class_names = read_class_names(workdir)
        model = build_model(experiment, len(class_names), read_preprocessing(workdir))
    except (WorkdirError, ConfigError) as error:
        raise WeightsError(f"{workdir}: {error}") from error
    with_ema = experiment.ema_decay is not None
    return Found(
        title=str(workdir),
        read=lambda: _read(workdir, model, with_ema=with_ema, step=step),
        name=experiment.model.name,
        stated_fields={field: getattr(model, field) for field in FIELDS},
        stated_preprocessing=model.preprocessing,
        class_names=class_names,
    )


def _read(workdir: epath.Path, model: EfficientNet, *, with_ema: bool, step: int | None) -> Arrays:
    # On all devices, since a process can read only what it has a part of.
    everywhere = replicated(make_mesh())
    variables: Any = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        abstract_variables(model),
    )
    try:
        with Checkpoints(workdir / "checkpoints", None) as checkpoints:
            if with_ema:
                variables = checkpoints.restore_parts({"ema": variables}, step)["ema"]
            else:
                variables = checkpoints.restore_parts(variables, step)
    except CheckpointError as error:
        raise WeightsError(f"{workdir}: {error}") from error
    arrays: dict[str, Any] = {}
    for collection in variables.values():
        arrays |= traverse_util.flatten_dict(collection, sep=OURS.separator)
    return arrays
