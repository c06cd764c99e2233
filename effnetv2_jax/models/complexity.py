"""What a model costs: parameters, multiply-accumulates and activations, without running it.

They are read off the model's jaxpr, so that they hold for any network: no layer has to be known.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.shapes import abstract_image, abstract_variables

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Counts for one image."""

    trainable: int
    """Parameters that gradients reach."""
    total: int
    """Those and the model's other collections, such as BatchNorm's moving statistics."""
    macs: int
    """Multiply-accumulates of convolutions and of products of matrices, attention's included. What
    a convolution reads beyond an edge counts like the rest."""
    activations: int
    """Elements of the outputs of these convolutions and products, as fvcore and timm count them:
    what normalises, activates, weighs or sums adds none."""


def complexity(model: Model, *, height: int, width: int) -> Complexity:
    """Counts a model's parameters, and its work on one image of that size in pixels.

    Raises:
      ValueError: the model's work depends on values, not on shapes alone.
    """
    variables = abstract_variables(model, height=height, width=width)
    images = abstract_image(model, height=height, width=width)
    jaxpr = jax.make_jaxpr(lambda *args: model.apply(*args, train=False))(variables, images)
    macs, activations = _work(jaxpr.jaxpr)
    trainable, total = (
        sum(leaf.size for leaf in jax.tree.leaves(part))
        for part in (variables["params"], variables)
    )
    return Complexity(trainable=trainable, total=total, macs=macs, activations=activations)


def _work(jaxpr: Jaxpr) -> tuple[int, int]:
    """Multiply-accumulates and activations of a jaxpr, with all jaxprs within it."""
    return _total(_work_of(equation) for equation in jaxpr.eqns)


def _total(works: Iterable[tuple[int, int]]) -> tuple[int, int]:
    macs = activations = 0
    for more_macs, more_activations in works:
        macs += more_macs
        activations += more_activations
    return macs, activations


def _work_of(equation: JaxprEqn) -> tuple[int, int]:
    name, params = equation.primitive.name, equation.params
    if name in _MACS:
        avals: list[Any] = [each.aval for each in (*equation.invars, *equation.outvars)]
        left, right, out = (aval.shape for aval in avals)
        return _MACS[name](params, left, right, out), math.prod(out)
    inside = [_work(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inside)
    macs, activations = _total(inside)
    if macs and name in ("while", "pallas_call"):
        raise ValueError(
            f"the model has convolutions or products inside of `{name}`, whose jaxpr does not tell "
            "how often they run: they cannot be counted"
        )
    passes = params["length"] if name == "scan" else 1
    return passes * macs, passes * activations


def _jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, ClosedJaxpr):
            yield leaf.jaxpr
        elif isinstance(leaf, Jaxpr):
            yield leaf


def _macs_of_product(params: dict[str, Any], left: Shape, right: Shape, out: Shape) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _macs_of_convolution(params: dict[str, Any], image: Shape, kernel: Shape, out: Shape) -> int:
    outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
    # A transposed convolution spreads its image out, and the zeros in between are no work.
    return math.prod(out) * math.prod(kernel) // (outputs * math.prod(params["lhs_dilation"]))


_MACS = {
    "dot_general": _macs_of_product,
    "conv_general_dilated": _macs_of_convolution,
    "conv2d": lambda params, image, kernel, out: math.prod(out) * math.prod(kernel[:-1]),
}
"""Of one primitive's params and the shapes of its operands and output; `conv2d` is ours."""
