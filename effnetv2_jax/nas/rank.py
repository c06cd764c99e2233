"""How far two orders agree."""

import itertools
import math
from collections.abc import Sequence


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b of two scores of the same things; NaN where one of them is constant.

    Raises:
      ValueError: they have different lengths.
    """
    concordant = ties_one = ties_other = 0
    pairs = list(itertools.combinations(list(zip(one, other, strict=True)), 2))
    for (a, x), (b, y) in pairs:
        sign = ((a > b) - (a < b)) * ((x > y) - (x < y))
        concordant += sign
        ties_one += a == b
        ties_other += x == y
    scale = math.sqrt((len(pairs) - ties_one) * (len(pairs) - ties_other))
    return concordant / scale if scale else math.nan
