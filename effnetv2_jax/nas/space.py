"""What a search chooses among: values for any fields of a config."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.nas.architecture import canonical

Label = str | int | float | bool | None
"""What a value goes by in records, and in Optuna."""
Picks = Mapping[str, Label]
"""Of every choice the label of a value, by the choice's name."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Some fields of an `Experiment`, and the values among which a search chooses for them."""

    fields: tuple[str, ...]
    """Such as `model.stages[3].kernel`, or several that change together."""
    values: tuple[tuple[Any, ...], ...]
    """Each has a value for every field."""

    def __post_init__(self) -> None:
        if not self.fields or not self.values:
            raise ConfigError(f"the choice of {self.name or 'no field'} needs fields and values")
        if any(len(value) != len(self.fields) for value in self.values):
            raise ConfigError(
                f"the choice of {self.name} needs {len(self.fields)} entries in each value, for "
                f"{', '.join(self.fields)}"
            )
        if len(set(self.labels)) < len(self.values):
            raise ConfigError(f"the choice of {self.name} has a value twice: {self.labels}")

    @property
    def name(self) -> str:
        """Its first field."""
        return self.fields[0] if self.fields else ""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What its values go by: that of the first field, where no two are alike."""
        first = [_label(value[0]) for value in self.values]
        if len(set(first)) == len(first):
            return tuple(first)
        return tuple(", ".join(map(str, value)) for value in self.values)

    def settings(self, label: Label) -> dict[str, Any]:
        """The fields with the values of that label."""
        return dict(zip(self.fields, self.values[self.labels.index(label)]))


def _label(value: Any) -> Label:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def choice(fields: str | Sequence[str], *values: Any) -> Choice:
    """`choice("optimizer.learning_rate", 0.1, 0.2)`.

    Args:
      fields: one field, or several that change together.
      values: for one field its values; for several a tuple of values each.

    Raises:
      ConfigError: a value is there twice, or lacks entries.
    """
    if isinstance(fields, str):
        return Choice((fields,), tuple((value,) for value in values))
    return Choice(tuple(fields), tuple(map(tuple, values)))


Space = tuple[Choice, ...]


def size(space: Space) -> int:
    """How many ways there are to choose."""
    return math.prod(len(choice.values) for choice in space)


def sample(space: Space, generator: np.random.Generator) -> dict[str, Label]:
    """One of them at random; each is as likely."""
    return {c.name: c.labels[generator.integers(len(c.values))] for c in space}


def neighbours(space: Space, picks: Picks) -> Iterator[dict[str, Label]]:
    """All that differ from `picks` in one choice."""
    for each in space:
        for label in each.labels:
            if label != picks[each.name]:
                yield {**picks, each.name: label}


def settings(space: Space, picks: Picks) -> dict[str, Any]:
    """The fields of the config with their values."""
    found: dict[str, Any] = {}
    for each in space:
        found |= each.settings(picks[each.name])
    return found


def paper_space(
    model: EfficientNetConfig,
    *,
    operators: Sequence[str] = ("mbconv", "fused"),
    kernels: Sequence[int] = (3, 5),
    expansions: Sequence[int] = (1, 4, 6),
    layers: Sequence[float] = (0.5, 1.0, 1.5),
    se_ratios: Sequence[float] | None = None,
    widths: Sequence[float] | None = None,
) -> Space:
    """The space of the EfficientNetV2 paper (section 3.1) around a backbone.

    Of every stage the operator, the kernel, the expansion and the number of layers are chosen; its
    channels and strides stay as the backbone has them.

    Args:
      model: the backbone; its `depth` and `width` are multiplied out.
      layers: as shares of the backbone's own numbers, which are rounded up.
      se_ratios: widths of squeeze-and-excitation to choose from; None gives every MBConv 0.25 and
        no Fused-MBConv any, as the released networks have it.
      widths: factors of all channels to choose from; None leaves them as they are.
    """
    found = [] if widths is None else [choice("model.width", *widths)]
    for index, row in enumerate(canonical(model).stages or ()):
        stage = f"model.stages[{index}]"
        if se_ratios is None:
            rows = ((operator, 0.25 if operator == "mbconv" else 0.0) for operator in operators)
            found.append(choice((f"{stage}.operator", f"{stage}.se_ratio"), *rows))
        else:
            found.append(choice(f"{stage}.operator", *operators))
            found.append(choice(f"{stage}.se_ratio", *se_ratios))
        counts = sorted({math.ceil(share * row.repeats) for share in layers})
        found += [
            choice(f"{stage}.kernel", *kernels),
            choice(f"{stage}.expand", *expansions),
            choice(f"{stage}.repeats", *counts),
        ]
    return tuple(found)
