"""What a model promises, so that everything else can train, evaluate, save and load it.

Nothing here imports JAX: configs are read without it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self

from effnetv2_jax.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The fields of a network; each family has a subclass of its own."""

    name: str
    """One of `effnetv2_jax.list_models()`, which decides the family."""
    dtype: Literal["bfloat16", "float32", "float64"] = "float32"
    """What the network computes in. Parameters, statistics, logits and loss stay float32 (float64
    under float64, which also needs the environment variable JAX_ENABLE_X64=1)."""

    input_channels: int = 3
    """Of the images: 3 for RGB, 1 for grey, any other number for pictures that have as many.
    Published weights are adapted to it."""

    FOLLOW_NAME: ClassVar[tuple[str, ...]] = ()
    """Fields that are None where they follow from the name."""
    NUMERICS: ClassVar[tuple[str, ...]] = ()
    """Fields besides the name and those that follow from it that decide what weights compute.

    One that is None is not stated, and `resolved` gives it its default. Weights of which nobody can
    tell what they were trained with are refused until it is stated."""
    MIN_SIZE: ClassVar[int] = 1
    """Least height and width of images, in pixels."""

    @property
    def example_group(self) -> int:
        """Neighbouring examples that share statistics in training, as a field `bn_group` says."""
        return getattr(self, "bn_group", None) or 1

    def stated(self) -> dict[str, Any]:
        """The fields that follow from the name where they are not None."""
        fields = {name: getattr(self, name) for name in self.FOLLOW_NAME}
        return {name: value for name, value in fields.items() if value is not None}

    def resolved(self) -> Self:
        """The config with every field stated that is None where it follows from something else."""
        return self

    def settled(self) -> Self:
        """The config with its `NUMERICS` stated, as a run records them."""
        whole = self.resolved()
        return dataclasses.replace(self, **{name: getattr(whole, name) for name in self.NUMERICS})

    def written_out(self) -> Self:
        """The same network, with its tables stated, so that overrides can reach into them."""
        return self

    def faults(self) -> Iterator[str]:
        """What makes no sense, each beginning with the field's name.

        A family's own begins with what this yields.
        """
        if self.input_channels < 1:
            yield f"input_channels must be above 0, not {self.input_channels}"

    def rows(self) -> list[tuple[str, ...]]:
        """A table that the config states, for a plan to show, with its titles first."""
        return []

    def renamed(self, name: str) -> Self:
        """The model of that name of the same family, all else as it is."""
        reset: dict[str, Any] = dict.fromkeys(self.FOLLOW_NAME)
        return dataclasses.replace(self, name=name, **reset)

    def architecture(self) -> dict[str, Any]:
        """What decides which weights fit and what they compute, by field; the name is not in it."""
        whole = self.resolved()
        return {field: getattr(whole, field) for field in (*self.FOLLOW_NAME, *self.NUMERICS)}


class Model(Protocol):
    """A Flax Linen module that classifies images.

    Its variables may have any collections beside `params`, or none.
    """

    @property
    def config(self) -> ModelConfig:
        """What it was built from."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 for features in their place."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """What pictures have to go through before."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What the logits stand for, where that is known."""
        ...

    @property
    def min_size(self) -> int:
        """Least height and width of images, in pixels; any size from there on will do."""
        ...

    @property
    def dtype(self) -> Any:
        """Of the images, and of what it computes."""
        ...

    def clone(self, **fields: Any) -> Any:
        """A copy with other fields."""
        ...

    def init(self, rngs: Any, images: Any, *, train: bool) -> Any:
        """Variables for float images `[B, H, W, C]`, C being the config's `input_channels`."""
        ...

    def lazy_init(self, rngs: Any, images: Any, *, train: bool) -> Any:
        """Likewise from shapes alone."""
        ...

    def apply(self, variables: Any, images: Any, **options: Any) -> Any:
        """Logits, float32 `[B, num_classes]`, of normalised images `[B, H, W, C]`.

        Images of integers raise a TypeError, and those of other shapes a ValueError, for which a
        family calls `effnetv2_jax.models.layers.check_images` first.

        Takes `train` and, in training, `dropout_rate`, a traced scalar; `rngs={"dropout": key}` and
        `mutable`, as any Flax module. A family whose stages may schedule stochastic depth also
        takes `stochastic_depth_rate`.
        """
        ...


def gives_features(model: Model) -> bool:
    """Whether a model gives feature maps in place of logits, as some have a field for."""
    return bool(getattr(model, "features_only", False))


def is_kernel(path: tuple[str, ...]) -> bool:
    """Whether a parameter is a kernel, as most families let only those decay."""
    return path[-1] == "kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Networks that are built alike: one row of the registry."""

    name: str
    """Such as `efficientnet`."""
    config: type[ModelConfig]
    variants: Mapping[str, Preprocessing]
    """Names of the models, and what each of them expects of pictures unless its weights differ."""
    build: Callable[..., Model]
    """`build(config, *, num_classes, preprocessing, class_names=None, **fields)` makes the module;
    it imports JAX when it is called. `fields` are fields of the module beside the config's."""
    thin: Callable[[Any], Any]
    """From a config to that of a thin and shallow network of the same kind, for `:smoke`."""
    head: tuple[str, ...] = ("classifier",)
    """Path in `params` of what starts anew where there are other classes."""
    stem: tuple[str, ...] = ()
    """Path in `params` of the kernel `[kh, kw, C, D]` that takes the images, by which weights are
    adapted to other channels; empty where they cannot be."""
    decays: Callable[[tuple[str, ...]], bool] = is_kernel
    """Whether weight decay and L2 apply to the parameter of that path."""
    libraries: str = ""
    """Module with the family's names in other libraries, whose `INTERCHANGE` is an
    `effnetv2_jax.models.libraries.Interchange`; empty where there are none."""
