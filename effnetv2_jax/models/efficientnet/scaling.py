"""How a network is made wider and deeper."""

import math
from collections.abc import Sequence


def round_channels(channels: int, width: float, rounding_floor: float = 0.0) -> int:
    """Scales a channel count and rounds it to a multiple of 8, but not below 8.

    A width of 1 leaves any count as it is.

    Args:
      rounding_floor: rounds up where less than this share of the scaled count would be left.
    """
    if width == 1:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= rounding_floor * scaled else rounded + 8


def round_repeats(repeats: int, depth: float) -> int:
    """Scales how often a stage's block is repeated, and rounds it up."""
    return math.ceil(depth * repeats)


def scaled_repeats(repeats: Sequence[int], depth: float, fixed_ends: bool = False) -> list[int]:
    """How often each stage's block is repeated in a network that is made deeper.

    Args:
      fixed_ends: leaves the first and the last stage as they are.
    """
    ends = (0, len(repeats) - 1) if fixed_ends else ()
    return [
        count if stage in ends else round_repeats(count, depth)
        for stage, count in enumerate(repeats)
    ]
