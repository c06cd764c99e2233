"""Weights that were found somewhere, not fitted to a model yet."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effnetv2_jax.models.variants import VARIANTS
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights import published
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.names import imagenet, synsets
from effnetv2_jax.weights.parts import Part
from effnetv2_jax.weights.sources import OURS, SOURCES, TIMM, TORCHVISION, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Named arrays, and what came with them; the rest is None."""

    title: str
    """Names them in messages: where they were found."""
    arrays: Mapping[str, np.ndarray]
    source: Source
    """Whose names and layouts the arrays have."""
    name: str | None = None
    """The model's, one of `list_models()`."""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `EfficientNet` that decide what these weights compute."""
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        """Of the classifier; 0 where there is none."""
        classifier = self.source.module(Part(("classifier",), "dense", None))
        bias = f"{classifier}{self.source.separator}{self.source.variables['dense']['bias']}"
        return len(self.arrays[bias]) if bias in self.arrays else 0

    def tells_apart(self, class_names: Sequence[str]) -> bool:
        """Whether the classifier's classes are these, as far as it is known what they are."""
        if len(class_names) != self.num_classes:
            return False
        known, names = self.class_names, tuple(class_names)
        return (
            known is None
            or known == names
            or any({known, names} == {imagenet(which), synsets(which)} for which in ("1k", "21k"))
        )

    def named(self, name: str | None) -> "Found":
        """With its model's name, and what follows from that.

        Args:
          name: what the caller takes it for; None if it says so itself.

        Raises:
          WeightsError: the weights are another model's, or nothing says whose they are.
        """
        if name is None and self.name is None:
            raise WeightsError(
                f"{self.title} does not say which model it is for; name one of "
                f"{', '.join(VARIANTS)}"
            )
        name = name or self.name
        assert name is not None
        if self.name not in (None, name):
            raise WeightsError(f"{self.title} has weights of {self.name}, not of {name}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise WeightsError(
                f"{self.title} has {len(self.class_names)} class names for {self.num_classes} "
                "classes"
            )
        found = dataclasses.replace(self, name=name)
        if self.source in (TIMM, OURS):  # Whose names serve models of either padding.
            return found
        preprocessing = (
            published.TORCHVISION_PREPROCESSING.get(name) if self.source is TORCHVISION else None
        )
        return dataclasses.replace(
            found,
            fields=published.numerics(name, library=self.source.title) | dict(found.fields),
            preprocessing=found.preprocessing or preprocessing,
        )


def recognize(title: str, arrays: Mapping[str, np.ndarray], **fields: Any) -> Found:
    """Tells whose names the arrays have.

    Raises:
      WeightsError: nobody's that is known here.
    """
    for source in SOURCES:
        if source.sign in arrays:
            return Found(title=title, arrays=arrays, source=source, **fields)
    signs = ", ".join(f"{source.sign} ({source.title})" for source in SOURCES)
    raise WeightsError(
        f"{title} has none of the names that are known here: {signs}; its first are "
        f"{', '.join(list(arrays)[:3]) or 'none'}"
    )
