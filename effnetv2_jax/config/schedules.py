"""Learning rate schedules: one dataclass each. They count examples, not steps."""

import dataclasses
from collections.abc import Iterator
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A share of the peak learning rate at every epoch; `name` decides the other fields."""

    name: str
    """Which schedule."""
    warmup_epochs: float = 0.0
    """The learning rate rises for so long, linearly from `warmup_from`."""
    warmup_from: float = 0.0
    """Share of the peak that the warm-up begins with, in [0, 1]."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        if self.warmup_epochs < 0:
            yield f"warmup_epochs must not be negative, it is {self.warmup_epochs}"
        if not 0 <= self.warmup_from <= 1:
            yield f"warmup_from must be in [0, 1], not {self.warmup_from}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(ScheduleConfig):
    """The peak throughout."""

    name: Literal["constant"] = "constant"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(ScheduleConfig):
    """Half a cosine, from the peak after the warm-up to `final` at the end of the run."""

    name: Literal["cosine"] = "cosine"
    final: float = 0.0
    """Share of the peak at the end, in [0, 1]."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        if not 0 <= self.final <= 1:
            yield f"final must be in [0, 1], not {self.final}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(ScheduleConfig):
    """A staircase, counted from epoch 0."""

    name: Literal["exponential"] = "exponential"
    decay_rate: float
    """Factor after every `decay_epochs`, in (0, 1]."""
    decay_epochs: float
    """Between two steps of the staircase."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        if not self.decay_epochs > 0:
            yield f"decay_epochs must be above 0, not {self.decay_epochs}"
        if not 0 < self.decay_rate <= 1:
            yield f"decay_rate must be in (0, 1], not {self.decay_rate}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(ScheduleConfig):
    """The peak until `decay_epochs` before the end of the run, then linear to `final`."""

    name: Literal["wsd"] = "wsd"
    decay_epochs: float
    """How long it falls, before the end of the run."""
    final: float = 0.0
    """Share of the peak at the end, in [0, 1]."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        yield from super().faults()
        if not self.decay_epochs > 0:
            yield f"decay_epochs must be above 0, not {self.decay_epochs}"
        if not 0 <= self.final <= 1:
            yield f"final must be in [0, 1], not {self.final}"


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "wsd": WarmupStableDecay,
}
