"""Everything that a training run carries from step to step."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from effnetv2_jax.experiment import ConfigError, Experiment
from effnetv2_jax.models.efficientnet import EfficientNet, create_model
from effnetv2_jax.models.variants import get_variant
from effnetv2_jax.parallel.mesh import replicated


@flax.struct.dataclass
class TrainState:
    """The state of a run after `step` steps; the data's place follows from the step alone."""

    step: jax.Array
    """int32 scalar."""
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    """Moving averages: `{"params": ..., "batch_stats": ...}`, or None when switched off."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, as trained last."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def build_model(experiment: Experiment, num_classes: int) -> EfficientNet:
    """The model of an experiment.

    Raises:
      ConfigError: there is no model of that name.
    """
    config = experiment.model
    overrides: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("width", "depth")
        if getattr(config, name) is not None
    }
    try:
        get_variant(config.name)
    except ValueError as error:
        raise ConfigError(f"config.model.name: {error}") from None
    return create_model(
        config.name,
        num_classes=num_classes,
        stochastic_depth_rate=config.stochastic_depth_rate,
        bn_momentum=config.bn_momentum,
        bn_group=config.bn_group,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.promote_types(config.dtype, jnp.float32),
        **overrides,
    )


def create_state(
    model: EfficientNet,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    with_ema: bool,
    mesh: Mesh,
) -> TrainState:
    """A state at step 0, replicated over the mesh; a pure function of the seed."""
    create = _initializer(model, optimizer, seed=seed, with_ema=with_ema)
    return jax.jit(create, out_shardings=replicated(mesh))()


def abstract_state(
    model: EfficientNet,
    optimizer: optax.GradientTransformation,
    *,
    with_ema: bool,
    mesh: Mesh,
) -> TrainState:
    """The shapes, dtypes and shardings of a state, to restore one into without computing it."""
    shapes = jax.eval_shape(_initializer(model, optimizer, seed=0, with_ema=with_ema))
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def _initializer(
    model: EfficientNet, optimizer: optax.GradientTransformation, *, seed: int, with_ema: bool
) -> Callable[[], TrainState]:
    def create() -> TrainState:
        # Shapes alone: the forward pass need not be compiled to make parameters.
        images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        variables = model.lazy_init(jax.random.key(seed), images, train=False)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema={"params": params, "batch_stats": batch_stats} if with_ema else None,
        )

    return create


def moving_average(
    old: Mapping[str, Any], new: Mapping[str, Any], *, step: jax.Array, decay: float
) -> Any:
    """Moves averages towards new values, faster at first: by 1 - min(decay, (1 + t) / (10 + t)).

    Args:
      old, new: trees of the same structure.
      step: t, the number of steps before this one.
      decay: the limit, such as 0.9999.
    """
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, b: a - ((1 - rate) * (a - b)).astype(a.dtype), old, new)
