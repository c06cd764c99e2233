"""What other libraries call our arrays, and how they lay them out: one `Source` for each."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from effnetv2_jax.models.efficientnet.layers_by_name import Kind, Part

Layout = Callable[[Kind, np.ndarray], np.ndarray]

_TORCH_BN = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_TENSORFLOW_BN = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A library's names and layouts for a model's arrays."""

    title: str
    module: Callable[[Part], str]
    """The library's name for a layer."""
    variables: Mapping[Kind, Mapping[str, str]]
    """For each kind of layer, our names of its arrays and the library's."""
    separator: str
    """Between the names of a layer and of its array."""
    to_theirs: Layout
    """Our array as the library lays it out: kernels `[kh, kw, C, D]`, dense ones `[C, K]`."""
    to_ours: Layout
    ignored: tuple[str, ...] = ()
    """Endings of names that belong to no weight."""

    @property
    def sign(self) -> str:
        """A name that only its files have: that of the stem's kernel."""
        stem = Part(("stem", "conv"), "conv", None)
        return f"{self.module(stem)}{self.separator}{self.variables['conv']['kernel']}"


def _torch_variables(bn: Mapping[str, str]) -> dict[Kind, Mapping[str, str]]:
    kernel = {"kernel": "weight"}
    with_bias = kernel | {"bias": "bias"}
    return {"conv": kernel, "depthwise": kernel, "gate": with_bias, "dense": with_bias, "bn": bn}


def _tensorflow_variables(depthwise: str) -> dict[Kind, Mapping[str, str]]:
    kernel = {"kernel": "kernel"}
    with_bias = kernel | {"bias": "bias"}
    return {
        "conv": kernel,
        "depthwise": {"kernel": depthwise},
        "gate": with_bias,
        "dense": with_bias,
        "bn": _TENSORFLOW_BN,
    }


def _to_torch(kind: Kind, array: np.ndarray) -> np.ndarray:
    """`[D, C, kh, kw]`, and `[K, C]` for the classifier."""
    return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def _from_torch(kind: Kind, array: np.ndarray) -> np.ndarray:
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _as_it_is(kind: Kind, array: np.ndarray) -> np.ndarray:
    return array


def _swap_depthwise(kind: Kind, array: np.ndarray) -> np.ndarray:
    """Between our `[kh, kw, 1, C]` and TensorFlow's `[kh, kw, C, 1]`: the same both ways."""
    return array.transpose(0, 1, 3, 2) if kind == "depthwise" and array.ndim == 4 else array


def _timm(part: Part) -> str:
    bn = part.kind == "bn"
    if part.place is None:
        names = {"stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2")}
        return names[part.role][bn] if part.role in names else "classifier"
    prefix = f"blocks.{part.place.stage}.{part.place.repeat}."
    order = part.place.roles
    if part.role == "se":
        return f"{prefix}se.conv_{part.path[-1]}"
    if bn:
        return f"{prefix}bn{order.index(part.role) + 1}"
    names_of_block = {
        ("project",): ["conv"],
        ("expand", "project"): ["conv_exp", "conv_pwl"],
        ("depthwise", "project"): ["conv_dw", "conv_pw"],
        ("expand", "depthwise", "project"): ["conv_pw", "conv_dw", "conv_pwl"],
    }
    return prefix + names_of_block[order][order.index(part.role)]


def _torchvision(part: Part) -> str:
    bn = int(part.kind == "bn")
    if part.place is None:
        stages = {"stem": 0, "head": part.num_stages + 1}
        return f"features.{stages[part.role]}.{bn}" if part.role in stages else "classifier.1"
    prefix = f"features.{part.place.stage + 1}.{part.place.repeat}.block."
    *first, last = part.place.roles
    gates = ["se"] if part.place.spec.operator == "mbconv" else []
    place = [*first, *gates, last].index(part.role)
    if part.role == "se":
        return f"{prefix}{place}.fc{1 if part.path[-1] == 'reduce' else 2}"
    return f"{prefix}{place}.{bn}"


def _keras(part: Part) -> str:
    bn = part.kind == "bn"
    if part.place is None:
        layers = {"stem": "stem", "head": "top"}
        suffix = "bn" if bn else "conv"
        return f"{layers[part.role]}_{suffix}" if part.role in layers else "predictions"
    prefix = f"block{part.place.stage + 1}{chr(ord('a') + part.place.repeat)}_"
    if part.role == "se":
        return f"{prefix}se_{part.path[-1]}"
    if part.role == "depthwise":
        return prefix + ("bn" if bn else "dwconv2")
    return f"{prefix}{part.role}_{'bn' if bn else 'conv'}"


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _tf1(part: Part) -> str:
    bn = part.kind == "bn"
    if part.place is None:
        if part.role == "classifier":
            return "head/dense"
        return f"{part.role}/{'tpu_batch_normalization' if bn else 'conv2d'}"
    prefix = f"blocks_{part.place.block}/"
    order = part.place.roles
    if part.role == "se":
        return f"{prefix}se/{_numbered('conv2d', int(part.path[-1] == 'expand'))}"
    if bn:
        return prefix + _numbered("tpu_batch_normalization", order.index(part.role))
    if part.role == "depthwise":
        return f"{prefix}depthwise_conv2d"
    dense = [role for role in order if role != "depthwise"]
    return prefix + _numbered("conv2d", dense.index(part.role))


TIMM = Source(
    title="timm",
    module=_timm,
    variables=_torch_variables(_TORCH_BN),
    separator=".",
    to_theirs=_to_torch,
    to_ours=_from_torch,
    ignored=(".num_batches_tracked",),
)
TORCHVISION = dataclasses.replace(TIMM, title="torchvision", module=_torchvision)
KERAS = Source(
    title="Keras",
    module=_keras,
    variables=_tensorflow_variables("kernel"),
    separator="/",
    to_theirs=_swap_depthwise,
    to_ours=_swap_depthwise,
)
OURS = Source(
    title="effnetv2_jax",
    module=lambda part: "/".join(part.path),
    variables={kind: {name: name for name in names} for kind, names in TIMM.variables.items()},
    separator="/",
    to_theirs=_as_it_is,
    to_ours=_as_it_is,
)
TF1 = dataclasses.replace(
    KERAS,
    title="the released TensorFlow code",
    module=_tf1,
    variables=_tensorflow_variables("depthwise_kernel"),
)
SOURCES = (TIMM, TORCHVISION, KERAS, TF1, OURS)
