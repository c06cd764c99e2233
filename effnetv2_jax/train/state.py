"""Everything that a training run carries from step to step."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import dtypes
from jax.sharding import Mesh

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import UnknownModelError, family_of
from effnetv2_jax.models.shapes import abstract_image
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.rates import check_rates, trained_params


@flax.struct.dataclass
class TrainState:
    """The state of a run after `step` steps; the data's place follows from the step alone."""

    step: jax.Array
    """int32 scalar."""
    params: Any
    collections: dict[str, Any]
    """What else the model's variables hold, by name: `{"batch_stats": ...}`, or nothing."""
    opt_state: Any
    """The optimizer's, for the parameters that are trained."""
    ema: Any
    """Moving averages of `variables`, or None when switched off."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, as trained last."""
        return {"params": self.params, **self.collections}

    def to_dict(self) -> dict[str, Any]:
        """The state as checkpoints hold it: each collection under its own name, beside the rest."""
        return {
            "step": self.step,
            **self.variables,
            "opt_state": self.opt_state,
            "ema": self.ema,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The state that `to_dict` made a dict of."""
        own = {name: saved[name] for name in _OWN}
        collections = {name: tree for name, tree in saved.items() if name not in _OWN}
        return cls(collections=collections, **own)


_OWN = ("step", "params", "opt_state", "ema")
"""Names that no collection may have, since they are the state's own."""


def build_model(
    experiment: Experiment, num_classes: int, own: Preprocessing | None = None
) -> Model:
    """The model of an experiment.

    Args:
      num_classes: the data's.
      own: what the weights in `experiment.init` expect of pictures; None takes the model's own.

    Raises:
      ConfigError: there is no model of that name, or it cannot do what a stage states.
    """
    config = experiment.model
    try:
        family = family_of(config.name)
    except UnknownModelError as error:
        raise ConfigError(f"config.model.name: {error}") from None
    model = family.build(
        config,
        num_classes=num_classes,
        preprocessing=experiment.preprocessing(own or family.variants[config.name]),
    )
    takes = inspect.signature(type(model).__call__).parameters
    for index, stage in enumerate(experiment.stages):
        if stage.stochastic_depth_rate is not None and "stochastic_depth_rate" not in takes:
            raise ConfigError(
                f"config.stages[{index}].stochastic_depth_rate is {stage.stochastic_depth_rate}, "
                f"but models of the family {family.name} take none; set it to None"
            )
    return model


def key_of(seed: int) -> np.ndarray:
    """The random key of a run, as the data (uint32) of which its programs wrap a key.

    An argument of theirs and not a constant in them, so that runs of other seeds share them.
    """
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def create_state(
    experiment: Experiment,
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    variables: Mapping[str, Any] | None = None,
) -> TrainState:
    """A state at step 0, replicated over the mesh; a pure function of the experiment's seed.

    Args:
      variables: to start from; None draws them.

    Raises:
      ConfigError: `experiment.rates` do not fit the model, or the model does not fit the state.
    """
    create = jax.jit(_initializer(experiment, model, optimizer), out_shardings=replicated(mesh))
    state: TrainState = create(key_of(experiment.seed), variables)
    return state


def abstract_state(
    experiment: Experiment,
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """The shapes, dtypes and shardings of a state, to restore one into without computing it."""
    shapes = jax.eval_shape(_initializer(experiment, model, optimizer), key_of(experiment.seed))
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def _initializer(
    experiment: Experiment, model: Model, optimizer: optax.GradientTransformation
) -> Callable[..., TrainState]:
    def create(key: jax.Array, variables: Mapping[str, Any] | None = None) -> TrainState:
        if variables is None:
            # Shapes alone: the forward pass need not be compiled to make parameters.
            variables = model.lazy_init(
                jax.random.wrap_key_data(key), abstract_image(model), train=False
            )
        variables = dict(variables)
        collections = {name: tree for name, tree in variables.items() if name != "params"}
        for name, tree in collections.items():
            if fault := _fault(name, tree):
                raise ConfigError(f"config.model.name: {experiment.model.name} has {fault}")
        params = variables["params"]
        check_rates(params, experiment.rates)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            collections=collections,
            opt_state=optimizer.init(trained_params(params, experiment.rates)),
            ema=None if experiment.ema_decay is None else variables,
        )

    return create


def _fault(collection: str, tree: Any) -> str:
    """Why checkpoints cannot hold a collection; empty if they can."""
    if collection in _OWN:
        return (
            f"a collection {collection!r}, and checkpoints hold something else under that name; "
            "rename it in the model"
        )
    if any(jnp.issubdtype(leaf.dtype, dtypes.prng_key) for leaf in jax.tree.leaves(tree)):
        return (
            f"a random key in its collection {collection!r}, which checkpoints cannot hold; keep "
            "its jax.random.key_data in the model"
        )
    return ""


def moving_average(
    old: Mapping[str, Any], new: Mapping[str, Any], *, step: jax.Array, decay: float
) -> Any:
    """Moves averages towards new values, faster at first: by 1 - min(decay, (1 + t) / (10 + t)).

    What is no floating number, such as a counter, is taken from `new` as it is.

    Args:
      old, new: trees of the same structure.
      step: t, the number of steps before this one.
      decay: the limit, such as 0.9999.
    """
    rate = jnp.minimum(decay, (1 + step) / (10 + step))

    def average(a: jax.Array, b: jax.Array) -> jax.Array:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return b
        return a - ((1 - rate) * (a - b)).astype(a.dtype)

    return jax.tree.map(average, old, new)
