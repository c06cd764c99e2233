"""The optimizers there are: one dataclass each, with defaults that belong to no recipe."""

import dataclasses
from collections.abc import Iterator
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become updates; `name` decides which fields there are beside these."""

    name: str
    """Which optimizer."""
    learning_rate: float
    """Peak learning rate for 256 examples per step; scaled with each stage's batch size."""
    gradient_clip: float | None = None
    """Largest global norm of the gradient; None does not clip."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("decay", "momentum", "beta1", "beta2"):
                if not 0 <= value < 1:
                    yield f"{field.name} must be in [0, 1), not {value}"
            elif isinstance(value, float) and value < 0:
                yield f"{field.name} must not be negative, it is {value}"
        if self.gradient_clip == 0:
            yield "gradient_clip must be above 0 or None, not 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(OptimizerConfig):
    """Gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = 0.0
    """Share of the old value in the sum of gradients; 0 goes without."""
    nesterov: bool = False
    """Looks ahead by one step of the momentum."""
    l2: float = 0.0
    """Coefficient of the penalty sum(v^2) / 2 over what decays, added to the gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSProp(OptimizerConfig):
    """TensorFlow's: epsilon inside the square root, squared gradients averaged from 1."""

    name: Literal["rmsprop"] = "rmsprop"
    decay: float = 0.9
    """Share of the old value in the average of squared gradients."""
    momentum: float = 0.0
    """Share of the old value in the sum of updates; 0 goes without."""
    epsilon: float = 1e-8
    """Inside the square root."""
    l2: float = 0.0
    """Coefficient of the penalty sum(v^2) / 2 over what decays, added to the gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    beta1: float = 0.9
    """Share of the old value in the average of gradients."""
    beta2: float = 0.999
    """Share of the old value in the average of squared gradients."""
    epsilon: float = 1e-8
    """Outside the square root."""
    weight_decay: float = 0.01
    """Times the learning rate and the parameter, subtracted from what decays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LAMB(OptimizerConfig):
    """Adam whose update is as large as each array is (arXiv 1904.00962), for large batches."""

    name: Literal["lamb"] = "lamb"
    beta1: float = 0.9
    """Share of the old value in the average of gradients."""
    beta2: float = 0.999
    """Share of the old value in the average of squared gradients."""
    epsilon: float = 1e-6
    """Outside the square root."""
    weight_decay: float = 0.0
    """Times the parameter, added to the update of what decays before it is scaled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(OptimizerConfig):
    """The sign of an average of gradients (arXiv 2302.06675)."""

    name: Literal["lion"] = "lion"
    beta1: float = 0.9
    """Share of the old average in the update."""
    beta2: float = 0.99
    """Share of the old value in the average."""
    weight_decay: float = 0.0
    """Times the learning rate and the parameter, subtracted from what decays."""


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "sgd": SGD,
    "rmsprop": RMSProp,
    "adamw": AdamW,
    "lamb": LAMB,
    "lion": Lion,
}
