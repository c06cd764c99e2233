"""Weights of a training run of our own."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.checkpoints import CheckpointError, Checkpoints
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.outputs.workdir import Checkpoint
from effnetv2_jax.parallel.mesh import make_mesh, replicated
from effnetv2_jax.weights.arrays import Arrays
from effnetv2_jax.weights.convert import Variables
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.found import OwnWeights
from effnetv2_jax.weights.run_config import read_run


def weights_of_run(workdir: epath.PathLike, *, checkpoint: Checkpoint = "last") -> OwnWeights:
    """The weights of a run: averaged ones where it has them.

    Args:
      workdir: the run's, local or `gs://`.
      checkpoint: a step, `last` or `best`.

    Raises:
      WeightsError: there is no run, or its model is of a family that is not here.
    """
    run = read_run(workdir)
    model = family_of(run.model.name).build(
        run.model, num_classes=len(run.class_names), preprocessing=run.preprocessing
    )
    return OwnWeights(
        title=str(run.workdir),
        read=functools.partial(
            _read, run.workdir, model, "ema" if run.averaged else "raw", checkpoint
        ),
        name=run.model.name,
        config=run.model,
        stated_classes=len(run.class_names),
        stated_preprocessing=run.preprocessing,
        class_names=run.class_names,
    )


def restore_variables(
    workdir: epath.Path, model: Model, kinds: Sequence[str], *, checkpoint: Checkpoint = "last"
) -> tuple[int, dict[str, Variables]]:
    """Reads a model's variables from a checkpoint of a run.

    Args:
      kinds: of `raw`, as trained last, and `ema`, their moving averages.
      checkpoint: a step, `last` or `best`.

    Returns:
      The checkpoint's step and the variables by their kind, on all devices.

    Raises:
      CheckpointError: there is no such checkpoint, it does not fit the model, or it is damaged.
    """
    # On all devices, since a process can read only what it has a part of.
    everywhere = replicated(make_mesh())

    def wanted(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    variables = jax.tree.map(wanted, abstract_variables(model))
    # By name, without the optimizer's part, which may be larger than the rest together.
    parts: dict[str, Any] = {"step": wanted(jax.ShapeDtypeStruct((), "int32"))}
    parts |= variables if "raw" in kinds else {}
    parts |= {"ema": variables} if "ema" in kinds else {}
    with Checkpoints(workdir / "checkpoints", None) as checkpoints:
        parts = checkpoints.restore_parts(parts, checkpoints.find(checkpoint))
    found_step, averages = int(parts.pop("step")), parts.pop("ema", None)
    found: dict[str, Variables] = {"raw": parts, "ema": averages}
    return found_step, {kind: found[kind] for kind in kinds}


def _read(workdir: epath.Path, model: Model, kind: str, checkpoint: Checkpoint) -> Arrays:
    try:
        _, variables = restore_variables(workdir, model, [kind], checkpoint=checkpoint)
    except CheckpointError as error:
        raise WeightsError(f"{workdir}: {error}") from error
    return {"/".join(path): leaf for path, leaf in named_leaves(variables[kind]).items()}
