"""What a report warns of."""

from collections.abc import Iterator, Sequence

from effnetv2_jax.outputs.report.facts import Facts
from effnetv2_jax.system.text import some

_TINY = 20
"""Training pictures of a class below which it is hardly learnt from scratch."""
_UNEQUAL = 10
"""Times that the largest class is as large as the smallest."""
_NAMED = 8
_RISES = 0.005
"""Of accuracy, in the last evaluation, above the one before."""


def warnings(
    facts: Facts | None,
    classes: Sequence[str],
    dtype: str,
    evaluations: Sequence[tuple[int, float]],
    total_steps: int,
) -> Iterator[str]:
    """What of a run deserves a second look, a sentence each.

    Args:
      classes: by label.
      dtype: that the network computes in.
      evaluations: steps and accuracies, rising.
    """
    if facts is not None:
        yield from facts.notes
        yield from _of_classes(facts, classes)
        yield from _of_pictures(facts)
        if dtype == "bfloat16" and facts.device.startswith("cpu"):
            yield (
                "the network computes in bfloat16 on a CPU, which is slower there than float32: "
                "--config.model.dtype=float32"
            )
    if len(evaluations) > 1:
        (_, before), (step, last) = evaluations[-2:]
        if step >= total_steps and last == max(value for _, value in evaluations):
            rise = last - before
            if rise > _RISES:
                yield (
                    f"the accuracy still rose at the end, by {100 * rise:.1f} points since the "
                    "evaluation before: more epochs may help"
                )


def _of_classes(facts: Facts, classes: Sequence[str]) -> Iterator[str]:
    training = facts.splits.get("training")
    if training is None or not training.class_counts:
        return
    counts = dict(zip(classes, training.class_counts))
    tiny = [f"{name} ({count:,})" for name, count in counts.items() if count < _TINY]
    if tiny:
        yield f"fewer than {_TINY} training pictures: {some(tiny, _NAMED)}"
    smallest, largest = min(counts.values()), max(counts.values())
    if largest >= _UNEQUAL * max(smallest, 1):
        yield (
            f"unequal classes: {largest:,} training pictures in the largest, {smallest:,} in the "
            "smallest; look at recall by class, not at accuracy alone"
        )


def _of_pictures(facts: Facts) -> Iterator[str]:
    twins = facts.twins
    if twins.count:
        pairs = [f"{theirs} = {ours}" for theirs, ours in twins.pairs]
        yield (
            f"{twins.count:,} of the pictures for evaluation are also trained on, byte for byte, "
            f"so the accuracy is flattered: {some(pairs, 3)}"
        )
    if facts.unreadable:
        yield f"pictures for evaluation that cannot be read: {some(facts.unreadable, _NAMED)}"
