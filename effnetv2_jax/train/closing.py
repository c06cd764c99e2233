"""What a run says of itself at its end."""

from collections.abc import Mapping

from etils import epath

from effnetv2_jax.outputs.progress import clock
from effnetv2_jax.outputs.report.facts import PAGE
from effnetv2_jax.train.evaluate import TITLES


def closing(
    workdir: epath.Path,
    result: Mapping[str, float],
    *,
    steps: int,
    best: str,
    spent: Mapping[str, float],
    metric: str,
    decay: float | None,
    reports: bool,
) -> list[str]:
    """Five lines: what was done, what the accuracies are of, the best step, what to read and do.

    Args:
      result: the last evaluation, of `train.evaluate.evaluate`.
      best: names the best checkpoint.
      spent: of `Activity.spent`.
      metric: what it is judged by, one of `train.evaluate.TITLES`.
      decay: of the averaged weights; None where there are none.
      reports: whether there is a report.
    """
    kinds = sorted(((seconds, kind) for kind, seconds in spent.items() if kind != "total"))[::-1]
    total = spent["total"]
    shares = [f"{kind} {seconds / total:.0%}" for seconds, kind in kinds if seconds >= total / 100]
    judged = f"{result[f'raw_{metric}']:.2%} (raw) is of the weights as the last step left them"
    if decay is not None:
        average = f"{result[f'ema_{metric}']:.2%} (ema)"
        judged += f", {average} of their moving average, which predict and exports use"
    page = workdir / PAGE if reports else workdir / "metrics.jsonl"
    return [
        f"done: {steps:,} steps; this start took {clock(total)} ({', '.join(shares)})",
        f"{TITLES[metric]}: {judged}",
        best,
        f"to read: {page}",
        f"next: python -m effnetv2_jax.predict --weights={workdir} PICTURES/",
    ]
