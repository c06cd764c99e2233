"""Weights that were found somewhere, not fitted to a model yet."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effnetv2_jax.models.efficientnet.layers_by_name import Part
from effnetv2_jax.models.efficientnet.published import TORCHVISION_PREPROCESSING, numerics
from effnetv2_jax.models.efficientnet.variants import VARIANTS
from effnetv2_jax.models.libraries import OURS, SOURCES, TIMM, TORCHVISION, Source
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights.class_names import same_classes
from effnetv2_jax.weights.errors import WeightsError

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Weights that are read when their arrays are asked for, and what came with them."""

    title: str
    """Names them in messages: where they were found."""
    read: Callable[[], Arrays]
    """Gives their arrays by name; raises a WeightsError if they cannot be read."""
    name: str | None = None
    """The model's, one of `list_models()`; None if nothing says so."""
    stated_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of `EfficientNet`, as far as they came with the weights."""
    stated_preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Every array by the name that its library gives it."""
        return self.read()

    @functools.cached_property
    def source(self) -> Source:
        """Whose names and layouts the arrays have.

        Raises:
          WeightsError: nobody's that is known here.
        """
        for source in SOURCES:
            if source.sign in self.arrays:
                return source
        signs = ", ".join(f"{source.sign} ({source.title})" for source in SOURCES)
        raise WeightsError(
            f"{self.title} has none of the names that are known here: {signs}; its first are "
            f"{', '.join(list(self.arrays)[:3]) or 'none'}"
        )

    @property
    def fields(self) -> Mapping[str, Any]:
        """Fields of `EfficientNet` that decide what these weights compute, as far as known."""
        assert self.name is not None
        if self.source in (TIMM, OURS):  # Whose names serve models of either padding.
            return self.stated_fields
        return numerics(self.name, library=self.source.title) | dict(self.stated_fields)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the weights expect of pictures; None if nothing says so."""
        if self.stated_preprocessing is None and self.source is TORCHVISION:
            assert self.name is not None
            return TORCHVISION_PREPROCESSING.get(self.name)
        return self.stated_preprocessing

    @functools.cached_property
    def num_classes(self) -> int:
        """Of the classifier; 0 where there is none.

        Raises:
          WeightsError: there are more or fewer class names.
        """
        classifier = self.source.module(Part(("classifier",), "dense", None))
        bias = f"{classifier}{self.source.separator}{self.source.variables['dense']['bias']}"
        count = len(self.arrays[bias]) if bias in self.arrays else 0
        if self.class_names is not None and len(self.class_names) != count:
            raise WeightsError(
                f"{self.title} has {len(self.class_names)} class names for {count} classes"
            )
        return count

    def tells_apart(self, class_names: Sequence[str]) -> bool:
        """Whether the classifier's classes are these, as far as it is known what they are."""
        if len(class_names) != self.num_classes:
            return False
        return self.class_names is None or same_classes(self.class_names, class_names)

    def named(self, name: str | None) -> "Found":
        """With its model's name.

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
        if None not in (name, self.name) and name != self.name:
            raise WeightsError(f"{self.title} has weights of {self.name}, not of {name}")
        return dataclasses.replace(self, name=name or self.name)
