"""The fields of a ResNet."""

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.resnet.variants import Architecture, Pool, get_variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ModelConfig):
    """Which ResNet, and how it computes."""

    name: str = "resnet50"
    repeats: tuple[int, ...] | None = None
    """Blocks of each stage; None takes the name's, as do the five fields below."""
    width: int | None = None
    """Channels of the stem and of the first stage's 3x3 convolutions; each stage doubles them."""
    deep_stem: bool | None = None
    """Three 3x3 convolutions in place of one of 7x7 (D, RS)."""
    stem_pool: Pool | None = None
    """After the stem `max`, a maximum over 3x3 pixels, or `conv`, a 3x3 convolution (RS)."""
    average_shortcut: bool | None = None
    """Shortcuts average pixels where they halve the resolution (D, RS)."""
    se_ratio: float | None = None
    """Width of squeeze-and-excitation over a block's output channels (RS: 0.25); 0 for none."""
    stochastic_depth_rate: float = 0.0
    """Probability that the last block is skipped; rises linearly from 0 at the first (ResNet-RS:
    0.1 from 200 layers on). A stage of the run may state its own."""
    bn_momentum: float = 0.9
    """Share of the old value in BatchNorm's moving statistics."""
    bn_epsilon: float = 1e-5
    """Added to BatchNorm's variance."""
    bn_frozen: bool = False
    """BatchNorm normalises with its moving statistics in training too, and leaves them as they are;
    for fine-tuning with small batches."""
    bn_group: int | None = None
    """Examples that share BatchNorm statistics in training; None is the whole global batch."""
    remat: Literal["none", "blocks"] = "none"
    """`blocks`: rematerialisation; the backward pass keeps only each block's input, and computes
    the rest again: less memory, about a third more work, the same numbers."""

    FOLLOW_NAME: ClassVar[tuple[str, ...]] = tuple(
        field.name for field in dataclasses.fields(Architecture)
    )
    NUMERICS: ClassVar[tuple[str, ...]] = ("bn_epsilon",)
    MIN_SIZE: ClassVar[int] = 32

    @property
    def whole(self) -> Architecture:
        """What it is, stated here or in the table of names."""
        return dataclasses.replace(get_variant(self.name).architecture, **self.stated())

    def resolved(self) -> Self:
        """With every field stated that follows from the name."""
        return dataclasses.replace(self, **dataclasses.asdict(self.whole))

    def written_out(self) -> Self:
        """The same network with its repeats stated."""
        return dataclasses.replace(self, repeats=self.whole.repeats)

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        whole = self.whole
        if not whole.repeats or min(whole.repeats) < 1:
            yield f"repeats must hold numbers above 0, not {whole.repeats}"
        if whole.width < 1 or (whole.deep_stem and whole.width % 2):
            yield f"width must be above 0, and even with deep_stem, not {whole.width}"
        if not 0 <= whole.se_ratio <= 1:
            yield f"se_ratio must be in [0, 1], not {whole.se_ratio}"
        if not 0 <= self.stochastic_depth_rate < 1:
            yield f"stochastic_depth_rate must be in [0, 1), not {self.stochastic_depth_rate}"
        if not 0 <= self.bn_momentum <= 1:
            yield f"bn_momentum must be in [0, 1], not {self.bn_momentum}"
        if not 0 < self.bn_epsilon < math.inf:
            yield f"bn_epsilon must be above 0, not {self.bn_epsilon}"
        if self.bn_group is not None and self.bn_group < 1:
            yield f"bn_group is {self.bn_group}; it must be above 0, or None"
