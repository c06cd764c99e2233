"""Variables of which every one matters, for tests of weights that come and go."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax import EfficientNet, create_model
from effnetv2_jax.config import CheckpointConfig
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.outputs.workdir import open_workdir


def thin(name: str = "efficientnetv2-b0", num_classes: int = 7, **fields: Any) -> EfficientNet:
    """A model of a few thousand parameters, with one block in each stage."""
    return create_model(name, **{"num_classes": num_classes, "width": 0.1, "depth": 0.1} | fields)


def random_variables(model: Model, seed: int = 0) -> dict[str, Any]:
    """Float32 arrays: kernels keep sizes, BatchNorm's are about 1, and nothing is 0."""
    random = np.random.default_rng(seed)
    variables: dict[str, Any] = {}
    for path, shape in variable_shapes(model).items():
        if path[-1] == "kernel":
            value = random.normal(size=shape) * np.prod(shape[:-1]) ** -0.5
        elif path[-1] in ("scale", "var"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(size=shape) * 0.2
        node = variables
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value.astype(np.float32)
    return variables


def assert_equal(found: Any, expected: Any) -> None:
    """Trees have the same leaves: names, dtypes, shapes and bits."""
    leaves, wanted = named_leaves(found), named_leaves(expected)
    assert leaves.keys() == wanted.keys()
    for path, leaf in leaves.items():
        values = np.asarray(leaf), np.asarray(wanted[path])
        np.testing.assert_array_equal(*values, strict=True, err_msg="/".join(path))


def calibrated(
    model: EfficientNet, variables: dict[str, Any], images: np.ndarray
) -> dict[str, Any]:
    """With BatchNorm statistics of these images, so that they leave their mark on the logits.

    Args:
      images: normalised, float32 `[B, H, W, 3]`.
    """
    learning = model.clone(bn_momentum=0.0, stochastic_depth_rate=0.0, dropout_rate=0.0)
    run = functools.partial(learning.apply, train=True, mutable=["batch_stats"])
    _, updated = jax.jit(run)(variables, images)
    return variables | jax.tree.map(np.asarray, updated)


def compiled(model: EfficientNet) -> Any:
    """`model.apply`, compiled the same way for all tests, so that they share compilations."""
    # Many small depthwise convolutions compile for longer than they run.
    slow = model.rounding_floor or model.dtype == jnp.float64
    options = {"xla_backend_optimization_level": 0} if slow else {}
    return jax.jit(model.apply, compiler_options=options)


def write_run(
    workdir: Path,
    model: Model,
    variables: Mapping[str, Any],
    averages: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A run of the model that has done three steps, as far as its weights are concerned.

    Args:
      config: in place of what this version would write.
    """
    content = {"model": dataclasses.asdict(model.config), "ema_decay": averages and 0.99}
    names = model.class_names or tuple(map(str, range(model.num_classes)))
    open_workdir(workdir, content if config is None else config, names, model.preprocessing)
    state = {"step": jnp.int32(3), **variables, "opt_state": {"count": jnp.int32(3)}}
    state |= {} if averages is None else {"ema": averages}
    with Checkpoints(workdir / "checkpoints", CheckpointConfig()) as checkpoints:
        checkpoints.save(3, jax.tree.map(jnp.asarray, state))
    return workdir
