"""Exact accuracy: every example counts once, however the last batch is filled."""

import collections
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from effnetv2_jax.augment import normalize
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, EvalExamples, Source, Workers, make_batches
from effnetv2_jax.data.record import available
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.ops.losses import LOSSES, hits
from effnetv2_jax.parallel.compiler import compiler_options
from effnetv2_jax.parallel.mesh import put_batch, replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.state import TrainState


class Sums(NamedTuple):
    """Totals over the examples of a batch that could be read and have a label."""

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    examples: jax.Array
    unlabelled: jax.Array
    """How many could be read and have none, as some of ImageNet ReaL."""


EvalStep = Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, Sums]]


def make_eval_step(
    model: Model,
    mesh: Mesh,
    *,
    loss: str = "softmax",
    classes: Sequence[int] | None = None,
) -> EvalStep:
    """Compiles an evaluation of several sets of weights on one batch.

    The step takes `{name: variables}` and a batch (`image` uint8 `[B, H, W, C]`, `labels` int32
    `[B, L]`, `mask` bool `[B]`), and returns `{name: Sums}`.

    Args:
      loss: one of `effnetv2_jax.ops.losses.LOSSES`.
      classes: the model's to choose among; None is all.
    """
    preprocessing = model.preprocessing

    def eval_step(weights: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, Sums]:
        images = normalize(batch["image"], preprocessing.mean, preprocessing.std, model.dtype)
        labels, readable = batch["labels"], batch["mask"]
        mask = readable & (labels >= 0).any(1)

        def evaluate(variables: Any) -> Sums:
            logits = cast(jax.Array, model.apply(variables, images, train=False))
            if classes is not None:
                chosen = np.isin(np.arange(logits.shape[1]), classes)
                logits = jnp.where(chosen, logits, -jnp.inf)
            _, best = jax.lax.top_k(logits, min(5, logits.shape[1]))
            right = hits(best, labels)

            def total(values: jax.Array) -> jax.Array:
                return jnp.where(mask, values, 0).sum(dtype=jnp.float32)

            return Sums(
                loss=total(LOSSES[loss](logits, labels)),
                top1=total(right[:, 0]),
                top5=total(right.any(1)),
                examples=mask.sum(dtype=jnp.float32),
                unlabelled=(readable & ~mask).sum(dtype=jnp.float32),
            )

        return {name: evaluate(variables) for name, variables in weights.items()}

    options = compiler_options(mesh.devices.flat[0])
    return jax.jit(eval_step, out_shardings=replicated(mesh), compiler_options=options)


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
    workers: Workers | None = None,
) -> dict[str, float]:
    """Accuracy over all examples of a source, on all processes together.

    Args:
      preprocessing: the model's.
      workers: processes that decode; None decodes in threads of this one.

    Returns:
      `{"<weights>_top1": ..., "<weights>_top5": ..., "<weights>_loss": ..., "examples": ...,
      "unreadable": ..., "available": ...}`. Accuracies are in [0, 1], the loss is in nats without
      label smoothing; `examples` counts those that could be read and have a label, `available`
      those of the whole split that the source may be a slice of.
    """
    examples = EvalExamples(
        data=experiment.data,
        preprocessing=preprocessing,
        batch_size=experiment.evaluation.batch_size,
    )
    batches = make_batches(
        source,
        examples,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=workers,
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
            raise DataError(f"{source.name}: there is no readable picture with a label")
        result |= {
            f"{name}_top1": float(sums.top1 / sums.examples),
            f"{name}_top5": float(sums.top5 / sums.examples),
            f"{name}_loss": float(sums.loss / sums.examples),
        }
    count = Sums(*next(iter(totals.values())))
    read = count.examples + count.unlabelled
    return result | {
        "examples": float(count.examples),
        "unreadable": float(len(source) - read),
        "available": float(available(source)),
    }


def summary(result: Mapping[str, float]) -> str:
    """An evaluation in one line."""
    # Checkpoints of earlier versions do not say it.
    of = f" of {result['available']:.0f}" if "available" in result else ""
    parts = [f"{result['examples']:.0f}{of} images"]
    if result["unreadable"]:
        parts.append(f"{result['unreadable']:.0f} unreadable")
    parts += [
        f"{name} top-1 {result[f'{name}_top1']:.2%} top-5 {result[f'{name}_top5']:.2%}"
        for name in ("raw", "ema")
        if f"{name}_top1" in result
    ]
    return " | ".join(parts)
