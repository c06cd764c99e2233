"""Networks in other libraries: their names, and how they name and lay out our arrays.

A family says so in the module that `Family.libraries` names, whose `INTERCHANGE` is an
`Interchange`. Nothing here imports JAX.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from effnetv2_jax.models.protocol import Family, ModelConfig
from effnetv2_jax.models.registry import families
from effnetv2_jax.preprocessing import Preprocessing

Kind = Literal["conv", "depthwise", "gate", "bn", "dense", "norm", "array"]
"""Of a layer. `gate` is a convolution with biases, as squeeze-and-excitation's are; `norm` a
LayerNorm; `array` no layer but an array by itself, such as a class token."""
Layout = Callable[[Kind, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with weights. A family adds what its names in other libraries go by."""

    path: tuple[str, ...]
    """Of the Flax module: `("blocks_3", "expand", "conv")`."""
    kind: Kind


class Entry(NamedTuple):
    """An array of ours that a library has under a name of its own."""

    path: tuple[str, ...]
    """Collection, modules and name: `("params", "stem", "conv", "kernel")`."""
    kind: Kind


def only_pooling(kind: str, *inert: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """For `Library.fields_of`, where other arguments than these make it another network.

    Args:
      kind: what `global_pool` may be.
      inert: arguments that do not change what the network computes.
    """

    def fields_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in arguments.items():
            if name not in inert and (name, value) != ("global_pool", kind):
                raise ValueError(f"{name}={value!r}")
        return {}

    return fields_of


mean_pooling_only = only_pooling("avg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
    """A library's networks of one family, and its names and layouts for their arrays."""

    name: str
    """`timm`, `torchvision`, `efficientnet_pytorch`, `keras` or `tf1`."""
    title: str
    """In messages."""
    models: Mapping[str, ModelConfig]
    """The networks it has, by its own names."""
    fields_of: Callable[[Mapping[str, Any]], dict[str, Any]] = mean_pooling_only
    """The fields of the config that arguments of its functions state, besides those that any model
    takes; raises a ValueError that begins with the argument for one without a counterpart here."""
    may_differ: tuple[str, ...] = ()
    """Fields of the config in which a network may differ from all of `models`, since its layers
    keep their names."""
    implies_numerics: bool = True
    """Whether weights in this library compute as its model of that name does. Otherwise they may be
    anybody's, and have to say so."""
    preprocessing: Mapping[str, Preprocessing] = dataclasses.field(default_factory=dict)
    """With which it evaluates its weights, by our name of the model, where files do not say."""
    layer_name: Callable[[Any], str]
    """Its name for a layer of the family."""
    first: str
    """Its name for the first layer that all networks of the family have, which has a kernel. By
    this it is told from other libraries."""
    stems: tuple[str, ...] = ()
    """Its names for the layer that takes the images, where that is not `first`."""
    classifier: str
    """Its name for the last layer, which has a bias."""
    variables: Mapping[Kind, Mapping[str, str]]
    """For each kind of layer, our names of its arrays and the library's."""
    separator: str
    """Between the names of a layer and of its array."""
    to_theirs: Layout
    """Our array as the library lays it out: kernels `[kh, kw, C, D]`, dense ones `[C, K]`."""
    to_ours: Layout
    ignored: tuple[str, ...] = ()
    """Endings of names that belong to no weight."""
    outermost: str = ""
    """Regular expression of the outermost modules, where a file may have a model's name before."""

    @property
    def sign(self) -> str:
        """A name that only its files have: that of the first kernel."""
        return f"{self.first}{self.separator}{self.variables['conv']['kernel']}"

    @property
    def first_kernels(self) -> tuple[str, ...]:
        """The names that the kernel which takes the images may have."""
        kernel = self.variables["conv"]["kernel"]
        return tuple(f"{stem}{self.separator}{kernel}" for stem in self.stems or (self.first,))

    @property
    def last_bias(self) -> str:
        """The name of the array that has a value for each class."""
        return f"{self.classifier}{self.separator}{self.variables['dense']['bias']}"

    def entries(self, layers: Iterable[Layer]) -> dict[str, Entry]:
        """Every array of a network's layers under the library's name for it."""
        found = {}
        for layer in layers:
            name = self.layer_name(layer)
            if layer.kind == "array":
                found[name] = Entry(("params", *layer.path), layer.kind)
                continue
            for ours, theirs in self.variables[layer.kind].items():
                collection = "batch_stats" if ours in ("mean", "var") else "params"
                path = (collection, *layer.path, ours)
                found[f"{name}{self.separator}{theirs}"] = Entry(path, layer.kind)
        return found


class Published(NamedTuple):
    """One set of weights on the Hugging Face Hub, in timm's format."""

    repository: str
    """`owner/name`; `model.safetensors` in it has timm's names."""
    preprocessing: Preprocessing
    """With which its authors measured what they published."""
    classes: Literal["1k", "21k"]
    """ImageNet's or ImageNet21k's."""
    fields: Mapping[str, Any]
    """Of the config, that decide what the weights compute."""
    package: str | None = None
    """On the Python Package Index, which brings such weights as a file of PyTorch's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interchange:
    """A family's dealings with other libraries."""

    libraries: tuple[Library, ...]
    layers: Callable[[Any], Iterator[Layer]]
    """Yields a model's layers that have weights, in the order of the computation."""
    tags: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Names of published weights, by the model's."""
    published: Callable[[str, str], Published | None] = lambda name, tag: None
    """The weights of a model and a tag; None if there are none. Tags may be spelt differently."""

    def library(self, name: str) -> Library | None:
        """The library of that name; None where the family has no names in it."""
        return next((each for each in self.libraries if each.name == name), None)


def interchange_of(family: Family) -> Interchange | None:
    """A family's dealings with other libraries, whose tables are loaded here; None without any."""
    if not family.libraries:
        return None
    interchange: Interchange = importlib.import_module(family.libraries).INTERCHANGE
    return interchange


def interchanges() -> Iterator[tuple[Family, Interchange]]:
    """Yields the dealings of every family that has any."""
    for family in families():
        if (interchange := interchange_of(family)) is not None:
            yield family, interchange


def timm_network(name: str) -> tuple[Library, ModelConfig] | None:
    """The network that timm has under a name, and timm's names for it; None if it is not here.

    Args:
      name: with or without a tag, such as `tf_efficientnetv2_s` or `tf_efficientnetv2_s.in21k`.
    """
    architecture, _, _ = name.partition(".")
    for _, interchange in interchanges():
        timm = interchange.library("timm")
        if timm is not None and architecture in timm.models:
            return timm, timm.models[architecture]
    return None


def is_tag(word: str) -> bool:
    """Whether any model has published weights of that tag."""
    return any(
        interchange.published(name, word) is not None
        for _, interchange in interchanges()
        for name in interchange.tags
    )


def tensorflow_variables(depthwise: str) -> dict[Kind, Mapping[str, str]]:
    """Our names and TensorFlow's of a layer's arrays.

    Args:
      depthwise: what depthwise kernels are called: `kernel` or `depthwise_kernel`.
    """
    kernel = {"kernel": "kernel"}
    with_bias = kernel | {"bias": "bias"}
    return {
        "conv": kernel,
        "depthwise": {"kernel": depthwise},
        "gate": with_bias,
        "dense": with_bias,
        "bn": {
            "scale": "gamma",
            "bias": "beta",
            "mean": "moving_mean",
            "var": "moving_variance",
        },
    }


def to_torch(kind: Kind, array: np.ndarray) -> np.ndarray:
    """`[D, C, kh, kw]`, and `[K, C]` for the classifier."""
    return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(kind: Kind, array: np.ndarray) -> np.ndarray:
    """The reverse of `to_torch`."""
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def swap_depthwise(kind: Kind, array: np.ndarray) -> np.ndarray:
    """Between our `[kh, kw, 1, C]` and TensorFlow's `[kh, kw, C, 1]`: the same both ways."""
    return array.transpose(0, 1, 3, 2) if kind == "depthwise" and array.ndim == 4 else array


def _torch_variables() -> dict[Kind, Mapping[str, str]]:
    """Our names and PyTorch's of a layer's arrays."""
    kernel = {"kernel": "weight"}
    with_bias = kernel | {"bias": "bias"}
    bn = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {
        "conv": kernel,
        "depthwise": kernel,
        "gate": with_bias,
        "dense": with_bias,
        "bn": bn,
        "norm": {"scale": "weight", "bias": "bias"},
    }


TORCH: dict[str, Any] = {
    "variables": _torch_variables(),
    "separator": ".",
    "to_theirs": to_torch,
    "to_ours": from_torch,
    "ignored": (".num_batches_tracked",),
}
"""Fields of a `Library` whose arrays are PyTorch's."""
