"""Names of keras.applications' EfficientNetV2 variables and where they go in our models.

Keras counts stages from 1 and blocks within a stage by letters (`block6h_dwconv2`); we count blocks
over the whole network.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from effnetv2_jax.models.efficientnet import EfficientNet

Path = tuple[str, ...]

CONVOLUTION = {"kernel": ("params", "kernel")}
DENSE = {"kernel": ("params", "kernel"), "bias": ("params", "bias")}
BATCH_NORM = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


def keras_names(model: EfficientNet) -> dict[str, Path]:
    """Maps `layer/variable` of Keras to collection, modules and name in our variables."""
    return {
        f"{layer}/{variable}": (collection, *module, name)
        for layer, module, variables in _layers(model)
        for variable, (collection, name) in variables.items()
    }


def from_keras(model: EfficientNet, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Turns Keras's arrays, keyed `layer/variable`, into our `params` and `batch_stats`.

    Raises:
      ValueError: arrays are missing or left over; the message names the first of them.
    """
    names = keras_names(model)
    for problem, wrong in (
        ("lack", names.keys() - arrays.keys()),
        ("have no place for", arrays.keys() - names.keys()),
    ):
        if wrong:
            raise ValueError(f"{len(wrong)} names do not fit: we {problem} {min(wrong)!r}")
    variables: dict[str, Any] = {}
    for name, path in names.items():
        array = arrays[name]
        if path[2:] == (
            "depthwise",
            "conv",
            "kernel",
        ):  # [kh, kw, C, 1] in Keras, [kh, kw, 1, C] in Flax
            array = array.transpose(0, 1, 3, 2)
        node = variables
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return variables


def _layers(model: EfficientNet) -> Iterator[tuple[str, Path, dict[str, tuple[str, str]]]]:
    """Keras's layers with variables: name, our module, and the variables they have."""
    for layer, part in (("stem", "stem"), ("top", "head")):
        yield f"{layer}_conv", (part, "conv"), CONVOLUTION
        yield f"{layer}_bn", (part, "bn"), BATCH_NORM
    index = 0
    for number, stage in enumerate(model.stages, start=1):
        for repeat in range(math.ceil(model.depth * stage.repeats)):
            layer, block = f"block{number}{chr(ord('a') + repeat)}_", f"blocks_{index}"
            index += 1
            if stage.expand != 1:
                yield f"{layer}expand_conv", (block, "expand", "conv"), CONVOLUTION
                yield f"{layer}expand_bn", (block, "expand", "bn"), BATCH_NORM
            if stage.operator == "mbconv":
                yield f"{layer}dwconv2", (block, "depthwise", "conv"), CONVOLUTION
                yield f"{layer}bn", (block, "depthwise", "bn"), BATCH_NORM
            if stage.se_ratio:
                yield f"{layer}se_reduce", (block, "se", "reduce"), DENSE
                yield f"{layer}se_expand", (block, "se", "expand"), DENSE
            yield f"{layer}project_conv", (block, "project", "conv"), CONVOLUTION
            yield f"{layer}project_bn", (block, "project", "bn"), BATCH_NORM
    yield "predictions", ("classifier",), DENSE
