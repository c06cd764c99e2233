"""Exact accuracy: every example counts once, however the last batch is filled."""

import collections
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from effnetv2_jax.augment import normalize
from effnetv2_jax.data import DataError, Source, Unreadable, eval_batches, open_source
from effnetv2_jax.experiment import Experiment, check_batch
from effnetv2_jax.models.efficientnet import EfficientNet
from effnetv2_jax.ops.losses import smoothed_cross_entropy
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.workdir import read_preprocessing
from effnetv2_jax.parallel.mesh import make_mesh, put_batch, replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.state import TrainState, abstract_state, build_model
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.pretrained import fit


class Sums(NamedTuple):
    """Totals over the examples of a batch that are not padding."""

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    examples: jax.Array


EvalStep = Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, Sums]]


def make_eval_step(model: EfficientNet, mesh: Mesh) -> EvalStep:
    """Compiles an evaluation of several sets of weights on one batch.

    The step takes `{name: variables}` and a batch (`image` uint8 `[B, H, W, 3]`, `label` int32
    `[B]`, `mask` bool `[B]`), and returns `{name: Sums}`.
    """
    preprocessing = model.preprocessing

    def eval_step(weights: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, Sums]:
        images = normalize(batch["image"], preprocessing.mean, preprocessing.std, model.dtype)
        labels, mask = batch["label"], batch["mask"]

        def evaluate(variables: Any) -> Sums:
            logits = cast(jax.Array, model.apply(variables, images, train=False))
            _, best = jax.lax.top_k(logits, min(5, logits.shape[1]))
            hits = best == labels[:, None]

            def total(values: jax.Array) -> jax.Array:
                return jnp.where(mask, values, 0).sum(dtype=jnp.float32)

            return Sums(
                loss=total(smoothed_cross_entropy(logits, labels)),
                top1=total(hits[:, 0]),
                top5=total(hits.any(1)),
                examples=total(jnp.ones_like(mask)),
            )

        return {name: evaluate(variables) for name, variables in weights.items()}

    return jax.jit(eval_step, out_shardings=replicated(mesh))


def weights_of(state: TrainState) -> dict[str, Any]:
    """The sets of weights that an evaluation compares: `raw`, and `ema` where there is one."""
    weights = {"raw": state.variables}
    return weights if state.ema is None else weights | {"ema": state.ema}


def evaluate(
    eval_step: EvalStep,
    weights: Mapping[str, Any],
    source: Source,
    experiment: Experiment,
    preprocessing: Preprocessing,
    mesh: Mesh,
) -> dict[str, float]:
    """Accuracy over all examples of a source, on all processes together.

    Args:
      preprocessing: the model's.

    Returns:
      `{"<weights>_top1": ..., "<weights>_top5": ..., "<weights>_loss": ..., "examples": ...,
      "unreadable": ...}`. Accuracies are in [0, 1], the loss is in nats without label smoothing;
      `examples` counts those that could be read.
    """
    unreadable = Unreadable(experiment.data.max_unreadable)
    batches = eval_batches(
        source,
        experiment.data,
        preprocessing,
        batch_size=experiment.evaluation.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        unreadable=unreadable,
    )
    totals = {name: np.zeros(len(Sums._fields)) for name in weights}
    pending: collections.deque[dict[str, Sums]] = collections.deque()

    def collect() -> None:
        for name, sums in jax.device_get(pending.popleft()).items():
            totals[name] += np.asarray(sums, np.float64)

    with contextlib.closing(batches):
        for batch in batches:
            pending.append(eval_step(weights, put_batch(batch, mesh)))
            if len(pending) > 1:
                collect()
        while pending:
            collect()

    result: dict[str, float] = {}
    for name, total in totals.items():
        sums = Sums(*total)
        if not sums.examples:
            raise DataError(f"{source.name}: there is no readable picture to evaluate on")
        result |= {
            f"{name}_top1": float(sums.top1 / sums.examples),
            f"{name}_top5": float(sums.top5 / sums.examples),
            f"{name}_loss": float(sums.loss / sums.examples),
        }
    examples = float(next(iter(totals.values()))[Sums._fields.index("examples")])
    return result | {"examples": examples, "unreadable": float(len(source) - examples)}


def evaluate_run(experiment: Experiment, workdir: epath.PathLike) -> dict[str, float]:
    """Evaluates the newest checkpoint of the run in `workdir`, on the devices at hand.

    Returns:
      As `evaluate`, and the checkpoint's `step`.

    Raises:
      CheckpointError: there is no checkpoint, or it is another model's.
      DataError: the evaluation data is missing or unreadable.
    """
    mesh = make_mesh()
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=mesh.size)
    source = open_source(experiment.data, "eval")
    model = build_model(experiment, len(source.class_names), read_preprocessing(workdir))
    state = abstract_state(experiment, model, optax.identity(), mesh)
    # By name, without the optimizer's part, which may be larger than the rest together.
    wanted = {"step": state.step, **state.variables, "ema": state.ema}
    with Checkpoints(epath.Path(workdir) / "checkpoints", None) as checkpoints:
        restored = TrainState(opt_state=None, **checkpoints.restore_parts(wanted))
    eval_step = make_eval_step(model, mesh)
    weights = weights_of(restored)
    result = evaluate(eval_step, weights, source, experiment, model.preprocessing, mesh)
    return {"step": float(restored.step)} | result


def evaluate_init(experiment: Experiment) -> dict[str, float]:
    """Evaluates the weights in `experiment.init` as they are, on the devices at hand.

    Returns:
      As `evaluate`.

    Raises:
      WeightsError: there are no such weights, or they do not fit the model or the data's classes.
      DataError: the evaluation data is missing or unreadable.
    """
    mesh = make_mesh()
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=mesh.size)
    source = open_source(experiment.data, "eval")
    found = find_weights(experiment.init, name=experiment.model.name)
    if not found.tells_apart(source.class_names):
        raise WeightsError(
            f"{found.title} tells {found.num_classes:,} classes apart, which are not the "
            f"{len(source.class_names):,} of {source.name}; train on it first"
        )
    model = build_model(experiment, found.num_classes, found.preprocessing)
    variables = jax.device_put(fit(found, model), replicated(mesh))
    eval_step = make_eval_step(model, mesh)
    return evaluate(eval_step, {"raw": variables}, source, experiment, model.preprocessing, mesh)


def summary(result: Mapping[str, float]) -> str:
    """An evaluation in one line."""
    parts = [f"{result['examples']:.0f} images"]
    if result["unreadable"]:
        parts.append(f"{result['unreadable']:.0f} unreadable")
    parts += [
        f"{name} top-1 {result[f'{name}_top1']:.2%} top-5 {result[f'{name}_top5']:.2%}"
        for name in ("raw", "ema")
        if f"{name}_top1" in result
    ]
    return " | ".join(parts)
