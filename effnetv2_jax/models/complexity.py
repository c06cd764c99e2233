"""What a model costs: parameters and multiply-accumulates, counted without running it."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax

from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.layers import Classifier, Conv
from effnetv2_jax.models.shapes import abstract_variables


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Counts for one image."""

    trainable: int
    """Parameters that gradients reach."""
    total: int
    """Those and BatchNorm's moving statistics."""
    macs: int
    """Multiply-accumulates of the convolutions and the classifier."""


def complexity(model: EfficientNet, *, height: int, width: int) -> Complexity:
    """Counts a model's parameters, and its work on one image of that size in pixels."""
    macs = 0

    def count(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal macs
        result = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, Conv | Classifier):
            kernel = context.module.variables["params"]["kernel"]
            macs += math.prod(kernel.shape[:-1]) * result.size
        return result

    with nn.intercept_methods(count):
        variables = abstract_variables(model, height=height, width=width)
    trainable = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    total = sum(leaf.size for leaf in jax.tree.leaves(variables))
    return Complexity(trainable=trainable, total=total, macs=macs)
