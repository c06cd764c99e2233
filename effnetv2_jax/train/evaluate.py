"""Exact evaluation: every example counts once, however the last batch is filled."""

import collections
import contextlib
import functools
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
from effnetv2_jax.train.average_precision import average_precision
from effnetv2_jax.train.state import TrainState


class Sums(NamedTuple):
    """Totals over the examples of a batch that could be read and have a label."""

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    examples: jax.Array
    unlabelled: jax.Array
    """How many could be read and have none, as some of ImageNet ReaL."""


class Scores(NamedTuple):
    """All of a batch of B examples, K classes and L labels, for what needs it at once."""

    loss: jax.Array
    """The sum over the examples that could be read."""
    logits: jax.Array
    """float32 `[B, K]`."""
    labels: jax.Array
    """int32 `[B, L]`."""
    mask: jax.Array
    """bool `[B]`: which examples could be read."""


EvalStep = Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, Any]]
"""As `make_eval_step` describes it."""


def make_eval_step(
    model: Model,
    mesh: Mesh,
    *,
    loss: str = "softmax",
    metric: str = "accuracy",
    classes: Sequence[int] | None = None,
) -> EvalStep:
    """Compiles an evaluation of several sets of weights on one batch.

    The step takes `{name: variables}` and a batch (`image` uint8 `[B, H, W, C]`, `labels` int32
    `[B, L]`, `mask` bool `[B]`), and returns `{name: Sums}`, or `{name: Scores}` for average
    precision, on every process.

    Args:
      metric: see `EvaluationConfig`.
      loss: one of `effnetv2_jax.ops.losses.LOSSES`.
      classes: the model's to choose among; None is all.
    """
    preprocessing = model.preprocessing

    def eval_step(weights: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, Any]:
        images = normalize(batch["image"], preprocessing.mean, preprocessing.std, model.dtype)
        labels, readable = batch["labels"], batch["mask"]
        mask = readable & (labels >= 0).any(1)

        def evaluate(variables: Any) -> Sums | Scores:
            logits = cast(jax.Array, model.apply(variables, images, train=False))
            if classes is not None:
                chosen = np.isin(np.arange(logits.shape[1]), classes)
                logits = jnp.where(chosen, logits, -jnp.inf)
            if metric == "average_precision":
                losses = jnp.where(readable, LOSSES[loss](logits, labels), 0)
                logits = logits.astype(jnp.float32)
                return Scores(losses.sum(dtype=jnp.float32), logits, labels, readable)
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
    """Accuracy or average precision over all examples of a source, on all processes together.

    Args:
      eval_step: of `experiment.evaluation.metric`.
      preprocessing: the model's.
      workers: processes that decode; None decodes in threads of this one.

    Returns:
      `{"<weights>_top1": ..., "<weights>_top5": ..., "<weights>_loss": ..., "examples": ...,
      "unreadable": ..., "available": ...}`. Accuracies are in [0, 1], the loss is in nats without
      label smoothing or class weights; `examples` counts those that could be read and have a label,
      `available` those of the whole split that the source may be a slice of. With average
      precision: `<weights>_map`, its mean over the classes that some example has, in place of
      accuracies; `absent_classes`, how many there are besides; and `examples` counts those without
      labels, too.
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
    kind = _OF_METRIC[experiment.evaluation.metric]
    totals = {name: kind() for name in weights}
    pending: collections.deque[dict[str, Any]] = collections.deque()

    def collect() -> None:
        for name, found in jax.device_get(pending.popleft()).items():
            totals[name].add(found)

    with contextlib.closing(batches):
        for batch in batches:
            pending.append(eval_step(weights, put_batch(batch, mesh)))
            if len(pending) > 1:
                collect()
        while pending:
            collect()

    result: dict[str, float] = {}
    for name, total in totals.items():
        measured = total.measured()
        if not measured:
            raise DataError(f"{source.name}: there is no readable picture with a label")
        result |= {f"{name}_{metric}": value for metric, value in measured.items()}
    first = next(iter(totals.values()))
    return result | {
        **first.counts(),
        "unreadable": float(len(source) - first.read),
        "available": float(available(source)),
    }


class _Accuracy:
    """Sums up what the steps of an evaluation return."""

    def __init__(self) -> None:
        self._total = np.zeros(len(Sums._fields))

    def add(self, sums: Sums) -> None:
        self._total += np.asarray(sums, np.float64)

    @property
    def read(self) -> float:
        """Pictures that could be read."""
        sums = Sums(*self._total)
        return float(sums.examples + sums.unlabelled)

    def counts(self) -> dict[str, float]:
        return {"examples": float(Sums(*self._total).examples)}

    def measured(self) -> dict[str, float]:
        """By metric; empty without an example to measure by."""
        sums = Sums(*self._total)
        if not sums.examples:
            return {}
        found = {"top1": sums.top1, "top5": sums.top5, "loss": sums.loss}
        return {metric: float(value / sums.examples) for metric, value in found.items()}


class _AveragePrecision:
    """Likewise; keeps the scores of all examples, 4 bytes for each and each class."""

    def __init__(self) -> None:
        self._loss = 0.0
        self._logits: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, scores: Scores) -> None:
        self._loss += float(scores.loss)
        self._logits.append(np.asarray(scores.logits)[scores.mask])
        self._labels.append(np.asarray(scores.labels)[scores.mask])

    @property
    def read(self) -> float:
        return float(sum(map(len, self._labels)))

    def counts(self) -> dict[str, float]:
        absent = np.isnan(self._by_class).sum()
        return {"examples": self.read, "absent_classes": float(absent)}

    def measured(self) -> dict[str, float]:
        if np.isnan(self._by_class).all():
            return {}
        return {"map": float(np.nanmean(self._by_class)), "loss": self._loss / self.read}

    @functools.cached_property
    def _by_class(self) -> np.ndarray:
        return average_precision(np.concatenate(self._logits), np.concatenate(self._labels))


_OF_METRIC: dict[str, type[_Accuracy] | type[_AveragePrecision]] = {
    "accuracy": _Accuracy,
    "average_precision": _AveragePrecision,
}

HEADLINE = {"accuracy": "top1", "average_precision": "map"}
"""By `EvaluationConfig.metric`, what it is measured by first."""


TITLES = {"top1": "top-1", "top5": "top-5", "map": "mAP"}
"""What the metrics are called in tables."""


def summary(result: Mapping[str, float]) -> str:
    """An evaluation in one line."""
    # Checkpoints of earlier versions do not say it.
    of = f" of {result['available']:.0f}" if "available" in result else ""
    parts = [f"{result['examples']:.0f}{of} images"]
    if result["unreadable"]:
        parts.append(f"{result['unreadable']:.0f} unreadable")
    if absent := result.get("absent_classes"):
        parts.append(f"{absent:.0f} classes without an example left out")
    for name in ("raw", "ema"):
        found = [
            f"{title} {result[f'{name}_{metric}']:.2%}"
            for metric, title in TITLES.items()
            if f"{name}_{metric}" in result
        ]
        parts += [" ".join([name, *found])] if found else []
    return " | ".join(parts)
