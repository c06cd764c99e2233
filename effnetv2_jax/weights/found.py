"""Weights that were found somewhere, not fitted to a model yet: another library's, or our own."""

import abc
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effnetv2_jax.models.libraries import Library, interchange_of
from effnetv2_jax.models.protocol import Model, ModelConfig
from effnetv2_jax.models.registry import family_of, list_models
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.system.text import some
from effnetv2_jax.weights.arrays import Arrays
from effnetv2_jax.weights.channels import adapted, told
from effnetv2_jax.weights.class_names import in_certain_order, same_classes
from effnetv2_jax.weights.convert import SHOWN, Variables, entries, from_library, from_own
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import check_same_network, differing_fields
from effnetv2_jax.weights.state_dicts import Stripped, strip_prefix

_log = logging.getLogger(__name__)

OWN_PREFIX = "params/"
"""Only arrays under our own names begin like this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found(abc.ABC):
    """Weights that are read when they are asked for, and what came with them."""

    title: str
    """Names them in messages: where they were found."""
    read: Callable[[], Arrays]
    """Gives their arrays by name; raises a WeightsError if they cannot be read."""
    name: str | None = None
    """The model's, one of `list_models()`; None if nothing says so."""
    stated_preprocessing: Preprocessing | None = None
    fault: str = ""
    """Why the preprocessing that came with them cannot be done here; empty if it can."""
    class_names: tuple[str, ...] | None = None

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Every array by its name."""
        return self.read()

    @abc.abstractmethod
    def network(self, like: ModelConfig) -> ModelConfig:
        """The config of the network they are for; what they do not say is as in `like`.

        Raises:
          WeightsError: neither they nor `like` say how the network computes, and it matters.
        """

    @abc.abstractmethod
    def variables(self, model: Model, *, strict: bool = True) -> Variables:
        """All of them, as variables of a whole model with their number of classes.

        Args:
          strict: False leaves out, and says so, a head that the library's network has not.

        Raises:
          WeightsError: they do not fit it; the message names the arrays.
        """

    def lacks(self, model: Model) -> bool:
        """Whether there are not all arrays of a model, so that another part of it may be meant."""
        return False

    @abc.abstractmethod
    def _count_classes(self) -> int:
        """Number of logits; 0 where there is no head for them."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the weights expect of pictures; None if nothing says so.

        Raises:
          WeightsError: what they expect is not here.
        """
        if self.fault:
            raise WeightsError(
                f"{self.title}: {self.fault}; pass the preprocessing that is meant, as in "
                "load_pretrained(..., preprocessing=Preprocessing(image_size=224, ...)), and save "
                "the model with save_pretrained to use it elsewhere"
            )
        return self.stated_preprocessing

    @functools.cached_property
    def num_classes(self) -> int:
        """Number of logits; 0 where there is no head for them.

        Raises:
          WeightsError: there are more or fewer class names.
        """
        count = self._count_classes()
        if self.class_names is not None and len(self.class_names) != count:
            raise WeightsError(
                f"{self.title} has {len(self.class_names)} class names for {count} classes"
            )
        return count

    @property
    def channels(self) -> int:
        """Of the images that they take, as their first kernel has them; 3 where that is unknown."""
        stem = self._stem()
        return 3 if stem is None else stem[1].shape[2]

    def _adapted(self, model: Model, arrays: Arrays) -> Arrays:
        """The arrays, the first kernel for the channels that a model takes; says what it did."""
        stem, channels = self._stem(), model.config.input_channels
        if stem is None or stem[1].shape[2] == channels:
            return arrays
        name, kernel = stem
        _log.warning("%s: %s", self.title, told(kernel.shape[2], channels))
        return {**arrays, name: self._laid_out(adapted(kernel, channels))}

    @abc.abstractmethod
    def _stem(self) -> tuple[str, np.ndarray] | None:
        """The first kernel's name, and the kernel `[kh, kw, C, D]`; None where there is none."""

    def _laid_out(self, kernel: np.ndarray) -> np.ndarray:
        """A first kernel as the arrays have it."""
        return kernel

    def doubt(self) -> str | None:
        """What is taken for granted of pictures, since nothing says it; None where all is known."""
        return None

    def check(self, config: ModelConfig) -> None:
        """Raises a WeightsError that names the field if they are for another network."""
        check_same_network(self.title, self.network(config), config)

    def tells_apart(self, class_names: Sequence[str]) -> bool:
        """Whether the head's classes are these, as far as it is known what they are."""
        if len(class_names) != self.num_classes:
            return False
        if self.class_names is None:
            return in_certain_order(class_names)
        return same_classes(self.class_names, class_names)

    def check_order(self, class_names: Sequence[str]) -> None:
        """Raises a WeightsError if nothing says which class of theirs is which of these."""
        if self.class_names is None and not in_certain_order(class_names):
            raise WeightsError(
                f"{self.title} has no names for its classes, and those of the data are numbers "
                f"({', '.join(class_names[:3])}, ...), which some sort as numbers and others as "
                "text; save the weights with their names first: save_pretrained(FOLDER, "
                "model.clone(class_names=(...)), variables)"
            )

    def named(self, name: str | None) -> "Found":
        """With the model's name.

        Args:
          name: what the caller takes it for; None if it says so itself.

        Raises:
          WeightsError: the weights are another model's, or nothing says whose they are.
        """
        if name is None and self.name is None:
            raise WeightsError(
                f"{self.title} does not say which model it is for; name one of "
                f"{', '.join(list_models())}"
            )
        if None not in (name, self.name) and name != self.name:
            raise WeightsError(f"{self.title} has weights of {self.name}, not of {name}")
        return dataclasses.replace(self, name=name or self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LibraryWeights(Found):
    """Weights under another library's names, in its layouts."""

    stated_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of the model's config, as far as they came with the weights."""

    @property
    def library(self) -> Library:
        """Whose names and layouts the arrays have.

        Raises:
          WeightsError: nobody's that the model's family knows.
        """
        return self._recognised[0]

    @property
    def _parts(self) -> Stripped:
        return self._recognised[1]

    @functools.cached_property
    def _recognised(self) -> tuple[Library, Stripped]:
        assert self.name is not None
        interchange = interchange_of(family_of(self.name))
        libraries = () if interchange is None else interchange.libraries
        for library in libraries:
            if (found := self._under(library)) is not None:
                return library, found
        signs = [f"{library.sign} ({library.title})" for library in libraries]
        raise WeightsError(
            f"{self.title} has none of the names that are known here for {self.name}: "
            f"{', '.join([*signs, f'{OWN_PREFIX}... (effnetv2_jax)'])}; its first are "
            f"{', '.join(list(self.arrays)[:3]) or 'none'}"
        )

    def _under(self, library: Library) -> Stripped | None:
        """Their network's arrays, if they have the library's names."""
        if library.separator == ".":
            return strip_prefix(self.arrays, library.sign, self.title)
        return Stripped(self.arrays, ()) if library.sign in self.arrays else None

    def network(self, like: ModelConfig) -> ModelConfig:
        """The config of the network they are for; what they do not say is as in `like`."""
        known = dataclasses.replace(like, **self.stated_fields)
        return dataclasses.replace(known, **self._numerics(known))

    def variables(self, model: Model, *, strict: bool = True) -> Variables:
        """All of them, as variables of a whole model with their number of classes."""
        library, arrays = self.library, self._adapted(model, self._parts.arrays)
        strange = self._strange_head(model)
        if strange and strict:
            raise WeightsError(
                f"{self.title} has {some(strange, SHOWN)} in place of {library.title}'s "
                f"{library.classifier}; num_classes=0 leaves that out, and any other number starts "
                "a new classifier"
            )
        if left := strange or self._parts.others:
            _log.warning("%s: left out %s", self.title, some(left, SHOWN))
        kept = {name: array for name, array in arrays.items() if name not in strange}
        return from_library(model, kept, library, title=self.title)

    def lacks(self, model: Model) -> bool:
        """Whether there are not all arrays of a model, so that another part of it may be meant."""
        return bool(entries(model, self.library).keys() - self._parts.arrays.keys())

    def _stem(self) -> tuple[str, np.ndarray] | None:
        library, arrays = self.library, self._parts.arrays
        for name in library.first_kernels:
            if np.ndim(arrays.get(name, ())) == 4:
                return name, library.to_ours("conv", np.asarray(arrays[name]))
        return None

    def _laid_out(self, kernel: np.ndarray) -> np.ndarray:
        return self.library.to_theirs("conv", kernel)

    def _strange_head(self, model: Model) -> list[str]:
        """Arrays beside a network without the library's classifier, that may be another one."""
        library, arrays = self.library, self._parts.arrays
        if library.last_bias in arrays:
            return []
        names = entries(model, library)
        modules = {name.partition(library.separator)[0] for name in names}
        beside = [
            name
            for name, array in arrays.items()
            if name.partition(library.separator)[0] not in modules and np.ndim(array) <= 2
        ]
        return [*beside, *self._parts.others]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the weights expect of pictures; None if nothing says so."""
        stated = super().preprocessing
        if stated is None and self.name is not None:
            return self.library.preprocessing.get(self.name)
        return stated

    def doubt(self) -> str | None:
        """What is taken for granted of pictures, since nothing says it; None where all is known."""
        if self.library.implies_numerics:
            return None
        return (
            f"{self.title} does not say how pictures are made for it: taken to be as those of the "
            f"published {self.name}; preprocessing= states something else"
        )

    def _numerics(self, like: ModelConfig) -> dict[str, Any]:
        """How they compute: as they say, as the library's networks do, or as `like` states."""
        stated = {
            field: value for field in like.NUMERICS if (value := getattr(like, field)) is not None
        }
        if like.NUMERICS and self.stated_fields.keys() >= set(like.NUMERICS):
            return stated  # The arrays need not be read for that.
        options = self._options(like)
        if self.library.implies_numerics:
            stated |= dict(set.intersection(*(set(values.items()) for values in options.values())))
        fitting = [values for values in options.values() if stated.items() <= values.items()]
        if fitting and all(values == fitting[0] for values in fitting):
            return fitting[0]
        if stated.keys() >= set(like.NUMERICS):
            return stated
        raise WeightsError(self._ambiguous(options, like))

    def _options(self, like: ModelConfig) -> dict[str, dict[str, Any]]:
        """How the library's networks compute that these may be weights of, by its names."""
        models = self.library.models
        same_name = {name: config for name, config in models.items() if config.name == self.name}
        numerics = {field: getattr(like, field) for field in like.NUMERICS}
        same_layers = {
            name: config
            for name, config in same_name.items()
            if not differing_fields(dataclasses.replace(config, **numerics), like)
        }
        return {
            name: {field: getattr(config.resolved(), field) for field in config.NUMERICS}
            for name, config in (same_layers or same_name or models).items()
        }

    def _ambiguous(self, options: Mapping[str, Mapping[str, Any]], like: ModelConfig) -> str:
        told = [f"{name} ({_written(values)})" for name, values in options.items()]
        flags = " ".join(f"--{field}" for field in like.NUMERICS)
        fields = " and ".join(f"config.model.{field}" for field in like.NUMERICS)
        such_as = _written(next(iter(options.values())))
        return (
            f"{self.title} does not say how its network computes: {self.library.title} has "
            f"{' and '.join(told[:SHOWN])}, whose arrays have the same names; state "
            f"{' and '.join(like.NUMERICS)}: load_pretrained(..., {such_as}), {flags} of predict, "
            f"or {fields}"
        )

    def _count_classes(self) -> int:
        bias, arrays = self.library.last_bias, self._parts.arrays
        return len(arrays[bias]) if bias in arrays else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnWeights(Found):
    """Weights under our own names: of a run, or as `save_pretrained` writes them for any family."""

    config: ModelConfig | None = None
    """Of the network; None where only its name is known."""
    stated_classes: int | None = None

    def network(self, like: ModelConfig) -> ModelConfig:
        """The config of the network they are for; what they do not say is as in `like`."""
        return like if self.config is None else dataclasses.replace(self.config, dtype=like.dtype)

    def variables(self, model: Model, *, strict: bool = True) -> Variables:
        """All of them, as variables of a whole model with their number of classes."""
        return from_own(model, self._adapted(model, self.arrays), title=self.title)

    def named(self, name: str | None) -> "Found":
        """As for any; a run may go by another name of its family, as long as `check` agrees."""
        of_family = self.config is not None and name in family_of(self.config.name).variants
        return self if of_family else super().named(name)

    def _stem(self) -> tuple[str, np.ndarray] | None:
        assert self.name is not None
        name = "/".join(("params", *family_of(self.name).stem))
        kernel = self.arrays.get(name, ())
        return (name, np.asarray(kernel)) if np.ndim(kernel) == 4 else None

    def _count_classes(self) -> int:
        if self.stated_classes is not None:
            return self.stated_classes
        assert self.name is not None
        head = "/".join(("params", *family_of(self.name).head, ""))
        return next((a.shape[-1] for name, a in self.arrays.items() if name.startswith(head)), 0)


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{field}={value!r}" for field, value in values.items())
