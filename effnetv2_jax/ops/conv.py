"""One 2-D convolution, lowered to what each platform runs fastest.

XLA's CPU backend is many times slower on depthwise kernels than a sum of shifted products, and on
1x1 kernels than a matrix product; TPU and GPU run the plain convolution best. The choice is made
when the program is lowered, so that one traced function can be exported for every platform, and
all paths differentiate in forward and reverse mode.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Padding = Literal["same", "symmetric"]
Pads = str | Sequence[tuple[int, int]]

_plain_only = contextvars.ContextVar("plain_only", default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Traces convolutions as they are, without a choice by platform, for programs that read them.

    A function that was traced before keeps its choice.
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

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def shifted_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _shifted_products(x, kernel[:, :, 0, :], stride, pads)

    def matrix_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])

    height, width, inputs, outputs = kernel.shape
    pads: Pads = "SAME"
    if padding == "symmetric":
        pads = [((size - 1) // 2, size // 2) for size in (height, width)]
    if (height, width) == (1, 1):
        # Such a kernel sees no pixel that the stride skips.
        x, stride = x[:, ::stride, ::stride], 1
    if _plain_only.get():
        return plain(x, kernel)
    if groups == outputs and inputs == 1:
        return lax.platform_dependent(x, kernel, cpu=shifted_products, default=plain)
    if (height, width, groups) == (1, 1, 1):
        return lax.platform_dependent(x, kernel, cpu=matrix_product, default=plain)
    return plain(x, kernel)


def _shifted_products(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Depthwise convolution of `x [B, H, W, C]` with `kernel [kh, kw, C]`, one tap at a time."""
    sizes = x.shape[1:3]
    outputs = [-(-size // stride) for size in sizes]
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(sizes, kernel.shape[:2], (stride, stride), pads)
    # Sums of bfloat16 would lose digits over the taps and, in the kernel's gradient, nearly all of
    # them over the pixels.
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x, kernel = x.astype(wide), kernel.astype(wide)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (stride * (output - 1) + 1 for output in outputs)
    total = None
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            tap = x[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j]
            total = tap if total is None else total + tap
    assert total is not None
    return total.astype(dtype)
