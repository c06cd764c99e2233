"""One 2-D convolution, lowered to what each platform runs fastest.

A convolution is linear in its input and in its kernel; so are its two gradients, and the gradients
of each of the three are the other two. They are primitives here: derivatives of any order, forward
and reverse, are made of them again, and each is lowered by itself. TPU and GPU run XLA's
convolutions; for what the CPU runs, see `ops/conv_cpu.py`. The choice is made when a program is
lowered, so that one traced function can be exported for every platform.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from effnetv2_jax.ops import conv_cpu, conv_plain
from effnetv2_jax.ops.conv_geometry import Geometry

Padding = Literal["same", "symmetric"]

_plain_only = contextvars.ContextVar("plain_only", default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Traces XLA's convolutions instead of these primitives, for programs that read them.

    A function that was traced before keeps what it has.
    """
    token = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(token)


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "same",
) -> jax.Array:
    """Convolves with zeros around the image, so that only the stride reduces its size.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C / groups, D]`, of x's dtype.
      stride: the same along both axes.
      groups: 1, or C for a depthwise convolution.
      padding: `same` is TensorFlow's, at stride 2 asymmetric for even sizes; `symmetric` is
        PyTorch's, (k - 1) / 2 on every side for odd kernels.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), D]`.
    """
    height, width = kernel.shape[:2]
    if (height, width) == (1, 1):
        # Such a kernel sees no pixel that the stride skips.
        x, stride = x[:, ::stride, ::stride], 1
    pads: Any = "SAME"
    if padding == "symmetric":
        pads = tuple(((size - 1) // 2, size // 2) for size in (height, width))
    geometry = Geometry((x.shape[1], x.shape[2]), (height, width), stride, pads, groups)
    if _plain_only.get():
        return conv_plain.forward(x, kernel, geometry)
    return _forward.bind(x, kernel, geometry=geometry)


Map = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def _primitive(name: str, plain: Map, cpu: Map) -> Primitive:
    """A map of two arrays, linear in each: `cpu` on the CPU, elsewhere `plain`."""

    def choose(a: jax.Array, b: jax.Array, *, geometry: Geometry) -> jax.Array:
        return lax.platform_dependent(
            a,
            b,
            cpu=lambda a, b: cpu(a, b, geometry),
            default=lambda a, b: plain(a, b, geometry),
        )

    def shape_of(a: Any, b: Any, *, geometry: Geometry) -> Any:
        out = jax.eval_shape(lambda a, b: plain(a, b, geometry), *map(_struct, (a, b)))
        return jax.core.ShapedArray(out.shape, out.dtype)

    def batched(arrays: Any, axes: Any, *, geometry: Geometry) -> tuple[jax.Array, int]:
        over_both = jax.vmap(lambda a, b: choose(a, b, geometry=geometry), in_axes=axes)
        return over_both(*arrays), 0

    primitive = Primitive(name)
    primitive.def_impl(jax.jit(choose, static_argnames="geometry"))
    primitive.def_abstract_eval(shape_of)
    mlir.register_lowering(primitive, mlir.lower_fun(choose, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


_forward = _primitive("conv2d", conv_plain.forward, conv_cpu.forward)
_to_input = _primitive("conv2d_to_input", conv_plain.to_input, conv_cpu.to_input)
_to_kernel = _primitive("conv2d_to_kernel", conv_plain.to_kernel, conv_cpu.to_kernel)

# For each, what its cotangent does to its first operand and to its second: of x, kernel and y two
# are given, and a map gives the third.
ad.defbilinear(
    _forward,
    lambda dy, _, kernel, geometry: _to_input.bind(dy, kernel, geometry=geometry),
    lambda dy, x, _, geometry: _to_kernel.bind(x, dy, geometry=geometry),
)
ad.defbilinear(
    _to_input,
    lambda dx, _, kernel, geometry: _forward.bind(dx, kernel, geometry=geometry),
    lambda dx, y, _, geometry: _to_kernel.bind(dx, y, geometry=geometry),
)
ad.defbilinear(
    _to_kernel,
    lambda dkernel, _, y, geometry: _to_input.bind(y, dkernel, geometry=geometry),
    lambda dkernel, x, _, geometry: _forward.bind(x, dkernel, geometry=geometry),
)
