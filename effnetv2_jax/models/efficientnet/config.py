"""The fields of an EfficientNet."""

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self, get_args

from effnetv2_jax.models.efficientnet.scaling import (
    SCALINGS,
    round_channels,
    scale,
    scaled_repeats,
)
from effnetv2_jax.models.efficientnet.variants import Activation, Operator, StageSpec, get_variant
from effnetv2_jax.models.protocol import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(ModelConfig):
    """Which EfficientNet, and how it computes.

    A table in `stages` is taken as it stands: `width` and `depth` are then 1 unless stated too.
    """

    name: str = "efficientnetv2-s"
    stages: tuple[StageSpec, ...] | None = None
    """The rows of its table; None takes those of the name."""
    width: float | None = None
    """Multiplies all channel counts; None takes the name's own."""
    depth: float | None = None
    """Multiplies all numbers of blocks; None takes the name's own."""
    stem: int | None = None
    """Channels of the first convolution, before `width`; None takes the name's."""
    head: int | None = None
    """Channels of the last convolution, before `width`; None takes the name's."""
    fixed_ends: bool | None = None
    """Whether `width` leaves the stem and the head as they are, and `depth` the first and the last
    stage; None takes the name's."""
    rounding_floor: float | None = None
    """Share of a scaled channel count that rounding has to leave, see `round_channels`; None takes
    the name's: 0 in EfficientNetV2, 0.9 in its predecessor."""
    activation: Activation | None = None
    """After every convolution that has one; None takes the name's."""
    stochastic_depth_rate: float = 0.2
    """Probability that the last block is skipped; rises linearly from 0 at the first. A stage of
    the run may state its own."""
    bn_momentum: float = 0.99
    """Share of the old value in BatchNorm's moving statistics (released code: 0.9)."""
    bn_epsilon: float | None = None
    """Added to BatchNorm's variance; None is the authors' 1e-3 (PyTorch's own is 1e-5). Weights
    that may be of either need it stated."""
    bn_frozen: bool = False
    """BatchNorm normalises with its moving statistics in training too, and leaves them as they are;
    for fine-tuning with small batches."""
    bn_group: int | None = None
    """Examples that share BatchNorm statistics in training; None is the whole global batch."""
    padding: Literal["same", "symmetric"] | None = None
    """Of convolutions: TensorFlow's, which None is, or PyTorch's, as torchvision's weights need it.
    Weights that may be of either need it stated."""
    remat: Literal["none", "blocks"] = "none"
    """`blocks`: rematerialisation; the backward pass keeps only each block's input, and computes
    the rest again: less memory, about a third more work, the same numbers."""

    FOLLOW_NAME: ClassVar[tuple[str, ...]] = (
        "stages",
        "width",
        "depth",
        "stem",
        "head",
        "fixed_ends",
        "rounding_floor",
        "activation",
    )
    NUMERICS: ClassVar[tuple[str, ...]] = ("padding", "bn_epsilon")
    MIN_SIZE: ClassVar[int] = 32

    def resolved(self) -> Self:
        """With every field stated that is None where it follows from the name, or has a default."""
        named = get_variant(self.name)
        own = self.stages is not None
        floor = named.rounding_floor if self.rounding_floor is None else self.rounding_floor
        fixed = named.fixed_ends if self.fixed_ends is None else self.fixed_ends

        def end(channels: int) -> int:
            # Beside a table that is taken as it stands, so are the name's ends.
            scales = own and self.width is None and not fixed
            return round_channels(channels, named.width, floor) if scales else channels

        def scale(stated: float | None, of_name: float) -> float:
            return stated if stated is not None else 1.0 if own else of_name

        return dataclasses.replace(
            self,
            stages=named.stages if self.stages is None else self.stages,
            width=scale(self.width, named.width),
            depth=scale(self.depth, named.depth),
            stem=end(named.stem) if self.stem is None else self.stem,
            head=end(named.head) if self.head is None else self.head,
            fixed_ends=fixed,
            rounding_floor=floor,
            activation=named.activation if self.activation is None else self.activation,
            padding=self.padding or "same",
            bn_epsilon=1e-3 if self.bn_epsilon is None else self.bn_epsilon,
        )

    def written_out(self) -> Self:
        """The same network with its table stated, scaled as far as the name scales it."""
        if self.stages is not None:
            return self
        whole = self.resolved()
        width = 1.0 if self.width is not None else whole.width or 1.0
        depth = 1.0 if self.depth is not None else whole.depth or 1.0
        stages = whole.stages or ()
        counts = scaled_repeats([row.repeats for row in stages], depth, bool(whole.fixed_ends))
        rows = (
            dataclasses.replace(
                row,
                outputs=round_channels(row.outputs, width, whole.rounding_floor or 0.0),
                repeats=count,
            )
            for row, count in zip(stages, counts)
        )
        return dataclasses.replace(self, stages=tuple(rows))

    def table(self) -> tuple[StageSpec, ...]:
        """The rows of its table as they are built, scaled by width and depth."""
        whole = self.resolved()
        rows, floor = whole.stages or (), whole.rounding_floor or 0.0
        counts = scaled_repeats(
            [row.repeats for row in rows], whole.depth or 1.0, bool(whole.fixed_ends)
        )
        return tuple(
            dataclasses.replace(
                row, outputs=round_channels(row.outputs, whole.width or 1.0, floor), repeats=count
            )
            for row, count in zip(rows, counts)
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The stated table of stages, scaled, with the number of blocks."""
        if self.stages is None:
            return []
        titles = ("stages", "blocks", "operator", "kernel", "stride", "expand", "channels", "SE")
        cells = [
            (
                f"[{index}]",
                str(row.repeats),
                row.operator,
                str(row.kernel),
                str(row.stride),
                str(row.expand),
                str(row.outputs),
                f"{row.se_ratio:g}" if row.se_ratio else "-",
            )
            for index, row in enumerate(self.table())
        ]
        return [titles, *cells]

    def scaled(self, name: str) -> Self:
        """The larger network that is made of this one's table as `name` is of B0's.

        It has that name, so that a recipe's image sizes and dropout fit, and states its own table,
        stem and head. All else is as here.

        Raises:
          ValueError: the published models of that name come out of no rule.
        """
        if name not in SCALINGS:
            raise ValueError(f"no scaling gives {name!r}; there are {', '.join(SCALINGS)}")
        whole = self.resolved()

        def end(channels: int | None) -> int:
            width = 1.0 if whole.fixed_ends else whole.width or 1.0
            return round_channels(channels or 0, width, whole.rounding_floor or 0.0)

        made = scale(self.table(), SCALINGS[name], stem=end(whole.stem), head=end(whole.head))
        return dataclasses.replace(
            self,
            name=name,
            stages=made.stages,
            stem=made.stem,
            head=made.head,
            width=None,
            depth=None,
            activation=whole.activation,
            rounding_floor=None,
            fixed_ends=None,
        )

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        for name in ("width", "depth", "stem", "head"):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                yield f"{name} must be above 0, not {number}"
        if self.stages is not None and not self.stages:
            yield "stages must hold at least one stage"
        for index, row in enumerate(self.stages or ()):
            yield from (f"stages[{index}].{fault}" for fault in _faults_of(row))
        if not 0 <= self.stochastic_depth_rate < 1:
            yield f"stochastic_depth_rate must be in [0, 1), not {self.stochastic_depth_rate}"
        if not 0 <= self.bn_momentum <= 1:
            yield f"bn_momentum must be in [0, 1], not {self.bn_momentum}"
        if self.bn_epsilon is not None and not 0 < self.bn_epsilon < math.inf:
            yield f"bn_epsilon must be above 0, not {self.bn_epsilon}"
        if self.bn_group is not None and self.bn_group < 1:
            yield f"bn_group is {self.bn_group}; it must be above 0, or None"


def _faults_of(row: StageSpec) -> Iterator[str]:
    if row.operator not in get_args(Operator):
        yield f"operator must be one of {get_args(Operator)}, not {row.operator!r}"
    for name in ("kernel", "expand", "outputs", "repeats"):
        if getattr(row, name) < 1:
            yield f"{name} must be above 0, not {getattr(row, name)}"
    if row.stride not in (1, 2):
        yield f"stride must be 1 or 2, not {row.stride}"
    if not 0 <= row.se_ratio <= 1:
        yield f"se_ratio must be in [0, 1], not {row.se_ratio}"
    if row.operator == "fused" and row.expand == 1 and row.se_ratio:
        yield (
            f"se_ratio is {row.se_ratio}, but a fused block with expand=1 has nothing to squeeze; "
            "set it to 0"
        )
