"""EfficientNet's names and numerics in timm, torchvision, Keras, EfficientNet-PyTorch and TF."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.layers_by_name import PlacedLayer, layers
from effnetv2_jax.models.efficientnet.published import (
    TAGS,
    TORCHVISION_PREPROCESSING,
    published,
    timm_name,
)
from effnetv2_jax.models.efficientnet.variants import S
from effnetv2_jax.models.libraries import (
    TORCH,
    Interchange,
    Library,
    mean_pooling_only,
    swap_depthwise,
    tensorflow_variables,
)


def _timm(layer: PlacedLayer) -> str:
    bn = layer.kind == "bn"
    if layer.place is None:
        names = {"stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2")}
        return names[layer.role][bn] if layer.role in names else "classifier"
    prefix = f"blocks.{layer.place.stage}.{layer.place.repeat}."
    order = layer.place.roles
    if layer.role == "se":
        return f"{prefix}se.conv_{layer.path[-1]}"
    if bn:
        return f"{prefix}bn{order.index(layer.role) + 1}"
    names_of_block = {
        ("project",): ["conv"],
        ("expand", "project"): ["conv_exp", "conv_pwl"],
        ("depthwise", "project"): ["conv_dw", "conv_pw"],
        ("expand", "depthwise", "project"): ["conv_pw", "conv_dw", "conv_pwl"],
    }
    return prefix + names_of_block[order][order.index(layer.role)]


def _torchvision(layer: PlacedLayer) -> str:
    bn = int(layer.kind == "bn")
    if layer.place is None:
        stages = {"stem": 0, "head": layer.num_stages + 1}
        return f"features.{stages[layer.role]}.{bn}" if layer.role in stages else "classifier.1"
    prefix = f"features.{layer.place.stage + 1}.{layer.place.repeat}.block."
    *first, last = layer.place.roles
    gates = ["se"] if layer.place.spec.operator == "mbconv" else []
    place = [*first, *gates, last].index(layer.role)
    if layer.role == "se":
        return f"{prefix}{place}.fc{1 if layer.path[-1] == 'reduce' else 2}"
    return f"{prefix}{place}.{bn}"


def _keras(layer: PlacedLayer) -> str:
    bn = layer.kind == "bn"
    if layer.place is None:
        ends = {"stem": "stem", "head": "top"}
        suffix = "bn" if bn else "conv"
        return f"{ends[layer.role]}_{suffix}" if layer.role in ends else "predictions"
    prefix = f"block{layer.place.stage + 1}{chr(ord('a') + layer.place.repeat)}_"
    if layer.role == "se":
        return f"{prefix}se_{layer.path[-1]}"
    if layer.role == "depthwise":
        return prefix + ("bn" if bn else "dwconv2")
    return f"{prefix}{layer.role}_{'bn' if bn else 'conv'}"


def _efficientnet_pytorch(layer: PlacedLayer) -> str:
    bn = layer.kind == "bn"
    if layer.place is None:
        names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
        return names[layer.role][bn] if layer.role in names else "_fc"
    prefix = f"_blocks.{layer.place.block}."
    if layer.role == "se":
        return f"{prefix}_se_{layer.path[-1]}"
    number = ("expand", "depthwise", "project").index(layer.role)
    return prefix + (f"_bn{number}" if bn else f"_{layer.role}_conv")


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _tf1(layer: PlacedLayer) -> str:
    bn = layer.kind == "bn"
    if layer.place is None:
        if layer.role == "classifier":
            return "head/dense"
        return f"{layer.role}/{'tpu_batch_normalization' if bn else 'conv2d'}"
    prefix = f"blocks_{layer.place.block}/"
    order = layer.place.roles
    if layer.role == "se":
        return f"{prefix}se/{_numbered('conv2d', int(layer.path[-1] == 'expand'))}"
    if bn:
        return prefix + _numbered("tpu_batch_normalization", order.index(layer.role))
    if layer.role == "depthwise":
        return f"{prefix}depthwise_conv2d"
    dense = [role for role in order if role != "depthwise"]
    return prefix + _numbered("conv2d", dense.index(layer.role))


def _timm_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that timm's arguments state; see `Library.fields_of`."""
    fields: dict[str, Any] = {}
    for name, value in arguments.items():
        match name, value:
            case ("global_pool", "avg" | "fast" | "fastavg") | ("output_stride", 32):
                pass
            case "pad_type", "same" | "symmetric" | "":
                fields["padding"] = value or "symmetric"
            case "bn_eps", float() | int():
                fields["bn_epsilon"] = float(value)
            case "act_layer", "silu" | "swish" | "relu" | "relu6" | "gelu":
                fields["activation"] = "silu" if value == "swish" else value
            case _:
                raise ValueError(f"{name}={value!r}")
    return fields


def _pytorch(name: str, bn_epsilon: float = 1e-5) -> EfficientNetConfig:
    return EfficientNetConfig(name=name, padding="symmetric", bn_epsilon=bn_epsilon)


_V1 = tuple(name for name in TAGS if name.startswith("efficientnet-"))
_TO_B4 = _V1[:5]
"""In which torchvision's BatchNorm has PyTorch's own epsilon."""

_OFFICIAL = (*_V1, *(f"efficientnetv2-{size}" for size in ("s", "m", "l", "xl")))
"""Of which timm has the authors' network, and one of the same layers with PyTorch's numerics."""


def _rw(repeats: tuple[int, ...], width: float) -> EfficientNetConfig:
    """A V2-S as timm's author made it before the authors' code was there."""
    changes: tuple[dict[str, Any], ...] = ({"operator": "edge"}, {}, {}, {}, {}, {"outputs": 272})
    return dataclasses.replace(
        _pytorch("efficientnetv2-s"),
        stages=tuple(
            dataclasses.replace(row, repeats=count, **change)
            for row, count, change in zip(S, repeats, changes, strict=True)
        ),
        stem=24,
        head=1792,
        width=width,
        rounding_floor=0.9,
    )


TIMM = Library(
    name="timm",
    title="timm",
    models={f"tf_{timm_name(name)}": EfficientNetConfig(name=name) for name in TAGS}
    | {timm_name(name): _pytorch(name) for name in _OFFICIAL}
    | {
        "efficientnetv2_rw_t": dataclasses.replace(
            _pytorch("efficientnetv2-s"), width=0.8, depth=0.9, rounding_floor=0.9
        ),
        "efficientnetv2_rw_s": _rw((2, 4, 4, 6, 9, 15), 1.0),
        "efficientnetv2_rw_m": _rw((3, 5, 5, 8, 15, 24), 1.2),
    },
    fields_of=_timm_fields,
    may_differ=("width", "depth"),
    implies_numerics=False,
    layer_name=_timm,
    first="conv_stem",
    classifier="classifier",
    **TORCH,
)
TORCHVISION = dataclasses.replace(
    TIMM,
    name="torchvision",
    title="torchvision",
    models={
        timm_name(name.replace("v2-", "_v2_")): _pytorch(name, 1e-5 if name in _TO_B4 else 1e-3)
        for name in TORCHVISION_PREPROCESSING
    },
    implies_numerics=True,
    preprocessing=TORCHVISION_PREPROCESSING,
    layer_name=_torchvision,
    first="features.0.0",
    classifier="classifier.1",
)
KERAS = Library(
    name="keras",
    title="Keras",
    models={
        f"EfficientNetV2{size.upper()}": EfficientNetConfig(name=f"efficientnetv2-{size}")
        for size in ("b0", "b1", "b2", "b3", "s", "m", "l")
    },
    layer_name=_keras,
    first="stem_conv",
    classifier="predictions",
    variables=tensorflow_variables("kernel"),
    separator="/",
    to_theirs=swap_depthwise,
    to_ours=swap_depthwise,
)
EFFICIENTNET_PYTORCH = dataclasses.replace(
    TIMM,
    name="efficientnet_pytorch",
    title="EfficientNet-PyTorch",
    models={name: EfficientNetConfig(name=name) for name in _V1},
    fields_of=mean_pooling_only,
    may_differ=(),
    implies_numerics=True,
    layer_name=_efficientnet_pytorch,
    first="_conv_stem",
    classifier="_fc",
)
TF1 = dataclasses.replace(
    KERAS,
    name="tf1",
    title="the released TensorFlow code",
    models={name: EfficientNetConfig(name=name) for name in TAGS},
    layer_name=_tf1,
    first="stem/conv2d",
    classifier="head/dense",
    variables=tensorflow_variables("depthwise_kernel"),
    outermost=r"stem|blocks_\d+|head",
)

INTERCHANGE = Interchange(
    libraries=(TIMM, TORCHVISION, EFFICIENTNET_PYTORCH, KERAS, TF1),
    layers=layers,
    tags=TAGS,
    published=published,
)
