"""Exact evaluation: every example counts once, however the last batch is filled."""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from effnetv2_jax.outputs.predictions import Predictions
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


class Answers(NamedTuple):
    """What the weights that a run is judged by make of each example of a batch, padding included.

    k is 5, or the number of classes where there are fewer.
    """

    best: jax.Array
    """int32 `[B, k]`: the most probable classes, the first before all."""
    probability: jax.Array
    """float32 `[B, k]`: theirs."""
    own_probability: jax.Array
    """float32 `[B]`: of the label; of several the highest."""
    loss: jax.Array
    """float32 `[B]`."""
    labels: jax.Array
    """int32 `[B, L]`, -1 where an example has fewer."""
    mask: jax.Array
    """bool `[B]`: whether it could be read and has a label."""


class Evaluated(NamedTuple):
    """An evaluation of one batch."""

    found: dict[str, Any]
    """`Sums` or, for average precision, `Scores`, by the name of the weights."""
    answers: Answers
    """Of the averaged weights, or of those there are."""


EvalStep = Callable[[Mapping[str, Any], Mapping[str, jax.Array]], Evaluated]


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
    `[B, L]`, `mask` bool `[B]`), and returns the same on every process.

    Args:
      metric: see `EvaluationConfig`.
      loss: one of `effnetv2_jax.ops.losses.LOSSES`.
      classes: the model's to choose among; None is all.
    """
    preprocessing = model.preprocessing

    probabilities = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[loss]

    def eval_step(weights: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> Evaluated:
        images = normalize(batch["image"], preprocessing.mean, preprocessing.std, model.dtype)
        labels, readable = batch["labels"], batch["mask"]
        mask = readable & (labels >= 0).any(1)

        def evaluate(variables: Any) -> tuple[Sums | Scores, Answers]:
            logits = cast(jax.Array, model.apply(variables, images, train=False))
            if classes is not None:
                chosen = np.isin(np.arange(logits.shape[1]), classes)
                logits = jnp.where(chosen, logits, -jnp.inf)
            losses = LOSSES[loss](logits, labels)
            _, best = jax.lax.top_k(logits, min(5, logits.shape[1]))
            shares = probabilities(logits.astype(jnp.float32))
            own = jnp.take_along_axis(shares, jnp.maximum(labels, 0), axis=1)
            answers = Answers(
                best=best.astype(jnp.int32),
                probability=jnp.take_along_axis(shares, best, axis=1),
                own_probability=jnp.where(labels >= 0, own, 0).max(1),
                loss=losses.astype(jnp.float32),
                labels=labels,
                mask=mask,
            )
            if metric == "average_precision":
                losses = jnp.where(readable, losses, 0)
                logits = logits.astype(jnp.float32)
                scores = Scores(losses.sum(dtype=jnp.float32), logits, labels, readable)
                return scores, answers
            right = hits(best, labels)

            def total(values: jax.Array) -> jax.Array:
                return jnp.where(mask, values, 0).sum(dtype=jnp.float32)

            sums = Sums(
                loss=total(losses),
                top1=total(right[:, 0]),
                top5=total(right.any(1)),
                examples=mask.sum(dtype=jnp.float32),
                unlabelled=(readable & ~mask).sum(dtype=jnp.float32),
            )
            return sums, answers

        found = {name: evaluate(variables) for name, variables in weights.items()}
        _, answers = found[judged_by(weights)]
        return Evaluated({name: of_batch for name, (of_batch, _) in found.items()}, answers)

    options = compiler_options(mesh.devices.flat[0])
    return jax.jit(eval_step, out_shardings=replicated(mesh), compiler_options=options)


def weights_of(state: TrainState) -> dict[str, Any]:
    """The sets of weights that an evaluation compares: `raw`, and `ema` where there is one."""
    weights = {"raw": state.variables}
    return weights if state.ema is None else weights | {"ema": state.ema}


def judged_by(weights: Iterable[str]) -> str:
    """Which of the sets of weights a run is judged by: the averages where there are some."""
    names = list(weights)
    return "ema" if "ema" in names else names[0]


def evaluate(
    eval_step: EvalStep,
    weights: Mapping[str, Any],
    source: Source,
    experiment: Experiment,
    preprocessing: Preprocessing,
    mesh: Mesh,
    workers: Workers | None = None,
    *,
    predictions: list[Predictions] | None = None,
) -> dict[str, float]:
    """Accuracy or average precision over all examples of a source, on all processes together.

    Args:
      eval_step: of `experiment.evaluation.metric`.
      preprocessing: the model's.
      workers: processes that decode; None decodes in threads of this one.
      predictions: what is predicted for each example is appended here.

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
    pending: collections.deque[Evaluated] = collections.deque()
    answered: list[Answers] = []

    def collect() -> None:
        done = pending.popleft()
        for name, found in jax.device_get(done.found).items():
            totals[name].add(found)
        if predictions is not None:
            answered.append(jax.device_get(done.answers))

    with contextlib.closing(batches):
        for batch in batches:
            pending.append(eval_step(weights, put_batch(batch, mesh)))
            if len(pending) > 1:
                collect()
        while pending:
            collect()

    if predictions is not None:
        places = examples_of_rows(mesh.devices.flat, experiment.evaluation.batch_size)
        predictions.append(_joined(answered, places))
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


def _joined(answered: Sequence[Answers], places: np.ndarray) -> Predictions:
    """The answers to the examples of all batches, in the order of the examples.

    Args:
      places: int `[B]`: which example of a batch stands in each row.
    """
    fields = {
        name: np.concatenate([np.asarray(getattr(each, name)) for each in answered])
        for name in Answers._fields
    }
    batches = np.arange(len(answered))[:, None] * len(places)
    index = (batches + places).ravel()
    order = np.argsort(index)
    order = order[fields.pop("mask")[order]]
    return Predictions(index=index[order], **{name: array[order] for name, array in fields.items()})


def examples_of_rows(devices: Iterable[Any], batch_size: int) -> np.ndarray:
    """int `[B]`: which example of a batch stands in each row of it, on the devices.

    A process has examples that follow each other, and its devices may not.

    Args:
      devices: of the mesh, in its order.
    """
    owners = np.array([device.process_index for device in devices])
    owners = np.repeat(owners, batch_size // len(owners))
    places = np.empty(batch_size, np.int64)
    places[np.argsort(owners, kind="stable")] = np.arange(batch_size)
    return places


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
