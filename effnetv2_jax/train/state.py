"""Everything that a training run carries from step to step."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.models.registry import create_model
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.rates import trainable_part


@flax.struct.dataclass
class TrainState:
    """The state of a run after `step` steps; the data's place follows from the step alone."""

    step: jax.Array
    """int32 scalar."""
    params: Any
    batch_stats: Any
    opt_state: Any
    """The optimizer's, for the parameters that are trained."""
    ema: Any
    """Moving averages: `{"params": ..., "batch_stats": ...}`, or None when switched off."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, as trained last."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def build_model(
    experiment: Experiment, num_classes: int, own: Preprocessing | None = None
) -> EfficientNet:
    """The model of an experiment.

    Args:
      num_classes: the data's.
      own: what the weights in `experiment.init` expect of pictures; None takes the model's own.

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
        variant = get_variant(config.name)
    except ValueError as error:
        raise ConfigError(f"config.model.name: {error}") from None
    return create_model(
        config.name,
        num_classes=num_classes,
        stochastic_depth_rate=config.stochastic_depth_rate,
        bn_momentum=config.bn_momentum,
        bn_epsilon=config.bn_epsilon,
        bn_frozen=config.bn_frozen,
        bn_group=config.bn_group,
        padding=config.padding,
        remat=config.remat == "blocks",
        preprocessing=experiment.preprocessing(own or variant.preprocessing),
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.promote_types(config.dtype, jnp.float32),
        **overrides,
    )


def create_state(
    experiment: Experiment,
    model: EfficientNet,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    variables: Mapping[str, Any] | None = None,
) -> TrainState:
    """A state at step 0, replicated over the mesh; a pure function of the experiment's seed.

    Args:
      variables: to start from; None draws them.
    """
    create = _initializer(experiment, model, optimizer)
    return jax.jit(create, out_shardings=replicated(mesh))(variables)


def abstract_state(
    experiment: Experiment,
    model: EfficientNet,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """The shapes, dtypes and shardings of a state, to restore one into without computing it."""
    shapes = jax.eval_shape(_initializer(experiment, model, optimizer))
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def _initializer(
    experiment: Experiment, model: EfficientNet, optimizer: optax.GradientTransformation
) -> Callable[..., TrainState]:
    def create(variables: Mapping[str, Any] | None = None) -> TrainState:
        if variables is None:
            # Shapes alone: the forward pass need not be compiled to make parameters.
            images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
            variables = model.lazy_init(jax.random.key(experiment.seed), images, train=False)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(trainable_part(params, experiment.trainable)),
            ema=None if experiment.ema_decay is None else dict(variables),
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
