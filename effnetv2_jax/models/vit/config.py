"""The fields of a vision transformer."""

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.vit.variants import Architecture, get_variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """Which vision transformer, and how it computes."""

    name: str = "vit-s16"
    width: int | None = None
    """Channels of a token; None takes the name's, as do the four fields below."""
    heads: int | None = None
    """Of the attention; they share the channels out."""
    depth: int | None = None
    """Number of blocks."""
    patch: int | None = None
    """Height and width of a token's patch of the picture, in pixels."""
    grid: int | None = None
    """Patches along a side of the pictures whose positions it learns. Pictures of other sizes have
    these positions resampled: bicubic, with antialiasing."""
    norm_epsilon: float = 1e-6
    """Added to LayerNorm's variance."""
    stochastic_depth_rate: float = 0.0
    """Probability that a branch of the last block is skipped; rises linearly from 0 at the first
    (DeiT: 0.1). A stage of the run may state its own."""
    remat: Literal["none", "blocks"] = "none"
    """`blocks`: rematerialisation; the backward pass keeps only each block's input, and computes
    the rest again: less memory, about a third more work, the same numbers."""

    FOLLOW_NAME: ClassVar[tuple[str, ...]] = tuple(
        field.name for field in dataclasses.fields(Architecture)
    )
    NUMERICS: ClassVar[tuple[str, ...]] = ("norm_epsilon",)
    MIN_SIZE: ClassVar[int] = 16

    @property
    def whole(self) -> Architecture:
        """What it is, stated here or in the table of names."""
        return dataclasses.replace(get_variant(self.name).architecture, **self.stated())

    def resolved(self) -> Self:
        """With every field stated that follows from the name."""
        return dataclasses.replace(self, **dataclasses.asdict(self.whole))

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        whole = self.whole
        for name, value in dataclasses.asdict(whole).items():
            if value < 1:
                yield f"{name} must be above 0, not {value}"
        if whole.heads >= 1 and whole.width % whole.heads:
            yield f"width is {whole.width}, which {whole.heads} heads cannot share out"
        if not 0 < self.norm_epsilon < math.inf:
            yield f"norm_epsilon must be above 0, not {self.norm_epsilon}"
        if not 0 <= self.stochastic_depth_rate < 1:
            yield f"stochastic_depth_rate must be in [0, 1), not {self.stochastic_depth_rate}"
