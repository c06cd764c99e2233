"""A head fitted to features: what a run starts from where `config.probe` says so.

The backbone computes the features of every training picture once. A linear classifier on them, as
good as it can be, takes a fraction of the time that steps through the backbone would, and training
the whole network from it on distorts what was learnt before less than from a random head (Kumar et
al., 2022, arXiv 2202.10054).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.experimental import multihost_utils

from effnetv2_jax.augment import normalize
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, EvalExamples, Source, Unreadable, Workers, make_batches
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.parallel.compiler import compiler_options
from effnetv2_jax.parallel.mesh import make_mesh, put_batch, replicated

PENALTIES = (1e-2, 1e-3, 3e-4, 1e-4)
"""Among these one is chosen where none is stated; falling, since each fit begins at the last's."""
HELD_OUT = 5
"""Every so many-th picture of a class is held out to choose it."""
ITERATIONS = 100


class Linear(NamedTuple):
    """A classifier of features: logits are `features @ kernel + bias`."""

    kernel: jax.Array
    """float32 `[C, K]`."""
    bias: jax.Array
    """float32 `[K]`."""


def with_fitted_head(
    experiment: Experiment,
    model: Model,
    variables: Mapping[str, Any],
    source: Source,
    *,
    unreadable: Unreadable,
    workers: Workers | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Variables with the head fitted to the features of all pictures of a source.

    Every process computes all of them on devices of its own, and takes the first one's head.

    Args:
      variables: the model's, of which the head alone is replaced.
      unreadable: counts the pictures that cannot be read, which are left out.
      report: called with what is done, a line each time.

    Raises:
      ConfigError: the model's head is no linear classifier of features.
      DataError: no picture can be read, or too many of them cannot.
    """
    head = family_of(model.config.name).head
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    names = {path[len(head) :] for path in flat if path[: len(head)] == head}
    if names != {("kernel",), ("bias",)}:
        raise ConfigError(
            f"config.probe.views needs a head of one kernel and one bias, and {'/'.join(head)} of "
            f"{model.config.name} is another; set it to 0"
        )
    views = experiment.probe.views
    report(f"features of {len(source):,} pictures, {views} view{'s' * (views > 1)} of each ...")
    features, labels = compute_features(
        experiment, model, variables, source, unreadable=unreadable, workers=workers
    )
    targets = label_shares(labels, model.num_classes)
    l2 = experiment.probe.l2
    chosen = ""
    if l2 is None:
        l2, accuracy = choose_penalty(features[0], targets)
        chosen = f", with which {accuracy:.1%} of a fifth held out were right"
    by_view = features.reshape(-1, features.shape[-1])
    fitted = fit_linear(by_view, np.tile(targets, (views, 1)), l2)
    report(f"the classifier is fitted to them, at l2={l2:g}{chosen}")
    fitted = Linear(*multihost_utils.broadcast_one_to_all(tuple(map(np.asarray, fitted))))
    flat |= {(*head, "kernel"): fitted.kernel, (*head, "bias"): fitted.bias}
    return {**variables, "params": traverse_util.unflatten_dict(flat)}


def compute_features(
    experiment: Experiment,
    model: Model,
    variables: Mapping[str, Any],
    source: Source,
    *,
    unreadable: Unreadable,
    workers: Workers | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the model's classifier sees of every readable picture, as evaluation shows it.

    Returns:
      float32 `[V, N, C]`, the second view being the mirror image; and the labels, int32 `[N, L]`,
      -1 where there are fewer.
    """
    mesh = make_mesh(jax.local_devices())
    preprocessing, views = model.preprocessing, experiment.probe.views
    backbone = model.clone(num_classes=0)
    head = family_of(model.config.name).head
    flat = traverse_util.flatten_dict(dict(variables["params"]))
    kept = {path: leaf for path, leaf in flat.items() if path[: len(head)] != head}
    weights = {**variables, "params": traverse_util.unflatten_dict(kept)}
    weights = jax.device_put(weights, replicated(mesh))

    @functools.partial(jax.jit, compiler_options=compiler_options(mesh.devices.flat[0]))
    def apply(weights: Any, images: jax.Array) -> jax.Array:
        images = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        features: jax.Array = backbone.apply(weights, images, train=False)
        return features.astype(jnp.float32)

    examples = EvalExamples(
        data=experiment.data,
        preprocessing=preprocessing,
        batch_size=experiment.evaluation.batch_size,
    )
    batches = make_batches(source, examples, unreadable=unreadable, workers=workers)

    def rows() -> Iterator[tuple[Sequence[jax.Array], np.ndarray, np.ndarray]]:
        for batch in batches:
            images = put_batch({"image": batch["image"]}, mesh)["image"]
            seen = [images, images[:, :, ::-1]][:views]
            yield [apply(weights, view) for view in seen], batch["labels"], batch["mask"]

    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    with contextlib.closing(batches):
        for found, its_labels, mask in rows():
            kept_rows = mask & (its_labels >= 0).any(1)
            features.append(np.stack([np.asarray(view)[kept_rows] for view in found]))
            labels.append(its_labels[kept_rows])
    if not sum(map(len, labels)):
        raise DataError(f"{source.name}: there is no readable picture with a label")
    return np.concatenate(features, axis=1), np.concatenate(labels)


def label_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Targets float32 `[N, K]` of labels int `[N, L]`: equal shares of those that are not -1."""
    one_hot = labels[:, :, None] == np.arange(num_classes)
    return (one_hot.sum(1) / (labels >= 0).sum(1, keepdims=True)).astype(np.float32)


def choose_penalty(features: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The penalty with the least loss on pictures that are held out for it, and their accuracy.

    Args:
      features: float32 `[N, C]`.
      targets: float32 `[N, K]`.
    """
    by_class = np.argsort(targets.argmax(1), kind="stable")
    held_out = np.zeros(len(targets), bool)
    held_out[by_class[HELD_OUT - 1 :: HELD_OUT]] = True
    if not held_out.any():  # Too few pictures to hold any out.
        return PENALTIES[len(PENALTIES) // 2], float("nan")
    best: tuple[float, float, float] | None = None
    start: Linear | None = None
    for l2 in PENALTIES:
        start = fit_linear(features[~held_out], targets[~held_out], l2, start)
        logits = jnp.asarray(features[held_out]) @ start.kernel + start.bias
        loss = float(optax.softmax_cross_entropy(logits, targets[held_out]).mean())
        right = float((logits.argmax(1) == targets[held_out].argmax(1)).mean())
        if best is None or loss < best[0]:
            best = loss, l2, right
    assert best is not None
    return best[1:]


def fit_linear(
    features: np.ndarray, targets: np.ndarray, l2: float, start: Linear | None = None
) -> Linear:
    """The linear classifier with the least cross-entropy and L2 penalty, by L-BFGS.

    Args:
      features: float32 `[N, C]`; each is scaled to mean 0 and deviation 1 for the fit, and the
        result takes them as they are.
      targets: float32 `[N, K]`, each row a distribution.
      l2: the penalty is `l2 / 2` times the sum of the squares of the scaled features' kernel.
      start: of another penalty, on the same features; None starts from 0.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    zeros = jnp.zeros((features.shape[1], targets.shape[1]), jnp.float32)
    begin = Linear(zeros, zeros[0])
    if start is not None:
        begin = Linear(start.kernel * deviation[:, None], start.bias + mean @ start.kernel)
    scaled = jnp.asarray((features - mean) / deviation)
    kernel, bias = _minimize(scaled, jnp.asarray(targets), jnp.float32(l2), begin)
    kernel = kernel / deviation[:, None]
    return Linear(kernel, bias - mean @ kernel)


@jax.jit
def _minimize(
    features: jax.Array, targets: jax.Array, l2: jax.Array, linear: Linear
) -> tuple[jax.Array, jax.Array]:
    def loss(linear: Linear) -> jax.Array:
        logits = features @ linear.kernel + linear.bias
        penalty = l2 / 2 * (linear.kernel**2).sum()
        return optax.softmax_cross_entropy(logits, targets).mean() + penalty

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(_: int, carry: tuple[Linear, Any]) -> tuple[Linear, Any]:
        linear, state = carry
        value, gradient = value_and_grad(linear, state=state)
        updates, state = optimizer.update(
            gradient, state, linear, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(linear, updates), state

    linear, _ = jax.lax.fori_loop(0, ITERATIONS, step, (linear, optimizer.init(linear)))
    return linear
