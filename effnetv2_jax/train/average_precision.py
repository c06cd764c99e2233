"""Average precision, exactly: over all examples at once, and not over batches."""

import numpy as np
from numpy.typing import NDArray


def average_precision(
    scores: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The average precision of each class, as scikit-learn's `average_precision_score` has it.

    Examples are ranked by a class's score. At every distinct score the precision counts as much as
    the recall has grown there: sum over n of (R_n - R_(n-1)) P_n, without interpolation. Only the
    order of the scores matters.

    Args:
      scores: `[N, K]`, logits or probabilities, without NaN.
      labels: int `[N, L]`, in [0, K), or -1 where an example has fewer.

    Returns:
      `[K]`, in [0, 1]; NaN for classes that no example has.
    """
    count, classes = scores.shape
    truth = np.zeros((count, classes + 1), bool)  # The last column takes the -1.
    truth[np.arange(count)[:, None], labels] = True
    return np.array([_of_class(scores[:, k], truth[:, k]) for k in range(classes)])


def _of_class(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    positives = int(truth.sum())
    if not positives:
        return np.nan
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # Of equals.
    found = np.cumsum(truth[order])[last]
    gained = np.diff(found, prepend=0) / positives
    return float(np.sum(gained * found / (last + 1)))
