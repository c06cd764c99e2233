"""How a network is made wider and deeper, and how a family is made of one table of stages."""

import dataclasses
import math
from collections.abc import Sequence

from effnetv2_jax.models.efficientnet.variants import StageSpec

LARGEST = 480
"""Largest image size in evaluation that scaling goes to, in pixels (paper, section 3.3)."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """What makes a larger network of a table of stages; `SCALINGS` has the published ones."""

    width: float = 1.0
    """Multiplies channel counts."""
    depth: float = 1.0
    """Multiplies numbers of blocks, which are rounded up."""
    image_size: int
    """Of evaluation, in pixels, before `eval_size` rounds and caps it."""
    coarse: bool = False
    """As S, M and L are: channels are multiples of 16 from 40 on, image sizes of 32; the stem is as
    wide as the first stage, and the head stays as it is. Otherwise as B1, B2 and B3 are: channels
    are multiples of 8, and stem and head are scaled like the stages."""
    late_layers: bool = False
    """Whether layers are added late first, see `with_late_layers`."""

    @property
    def eval_size(self) -> int:
        """Image size in evaluation, in pixels: at most 480."""
        size = math.ceil(self.image_size / 32) * 32 if self.coarse else self.image_size
        return min(size, LARGEST)

    @property
    def train_size(self) -> int:
        """Largest image size in training, in pixels: a fifth below, in multiples of 16."""
        return self.eval_size * 4 // 5 // 16 * 16

    def channels(self, count: int) -> int:
        """A channel count, scaled."""
        scaled = count * self.width
        if self.coarse and scaled >= 40:
            return int(scaled + 8) // 16 * 16
        return round_channels(count, self.width)


SCALINGS = {
    "efficientnetv2-b0": Scaling(image_size=224),
    "efficientnetv2-b1": Scaling(depth=1.1, image_size=240),
    "efficientnetv2-b2": Scaling(width=1.1, depth=1.2, image_size=260),
    "efficientnetv2-b3": Scaling(width=1.2, depth=1.4, image_size=300),
    # Widths, depths and image sizes of EfficientNet-B4, B5 and B7.
    "efficientnetv2-s": Scaling(width=1.4, depth=1.8, image_size=380, coarse=True),
    "efficientnetv2-m": Scaling(
        width=1.6, depth=2.2, image_size=456, coarse=True, late_layers=True
    ),
    "efficientnetv2-l": Scaling(
        width=2.0, depth=3.1, image_size=600, coarse=True, late_layers=True
    ),
}
"""By the model that each of them makes of B0's table.

The published tables differ in three numbers: stage 6 of S has 256 channels in place of 272, S is
trained at 300 pixels in place of 304, and B0 at 192 in place of 176. XL is not here: its blocks are
4 times those of L's base but for stage 4 (16, not 12), and no width gives its channels.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled:
    """A network that scaling made."""

    stages: tuple[StageSpec, ...]
    stem: int
    """Channels of the first convolution."""
    head: int
    """Channels of the last one."""


def scale(
    stages: Sequence[StageSpec], scaling: Scaling, *, stem: int = 32, head: int = 1280
) -> Scaled:
    """Applies scaling to any table of stages, published or searched (paper, section 3.3).

    Args:
      stages: of the base, as they are built: no width or depth beside them.
      stem, head: channels of the base's first and last convolution.
    """
    base = with_late_layers(stages) if scaling.late_layers else tuple(stages)
    scaled = tuple(
        dataclasses.replace(
            row,
            outputs=scaling.channels(row.outputs),
            repeats=round_repeats(row.repeats, scaling.depth),
        )
        for row in base
    )
    if scaling.coarse:
        return Scaled(stages=scaled, stem=scaled[0].outputs, head=head)
    return Scaled(stages=scaled, stem=scaling.channels(stem), head=scaling.channels(head))


def with_late_layers(stages: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
    """Adds layers where images are smallest, as M and L have them over B0's table.

    The last stage but one has a block more, and after the last comes another of two blocks like its
    own, at stride 1, with 5/3 of its channels in multiples of 8: 320 after 192.

    Raises:
      ValueError: there is but one stage.
    """
    if len(stages) < 2:
        raise ValueError(f"late layers need a table of at least two stages, not {len(stages)}")
    *early, before, last = stages
    longer = dataclasses.replace(before, repeats=before.repeats + 1)
    added = dataclasses.replace(
        last, stride=1, outputs=round_channels(last.outputs, 5 / 3), repeats=2
    )
    return (*early, longer, last, added)
