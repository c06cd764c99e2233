"""XLA's convolution and its two gradients."""

from typing import Any

import jax
from jax import lax

from effnetv2_jax.ops.conv_geometry import Geometry


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`[B, H, W, C]` and `[kh, kw, C / groups, D]` to `[B, H', W', D]` of x's dtype."""
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(geometry.stride, geometry.stride),
        padding=geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def to_input(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `forward` in x: `[B, H', W', D]` and the kernel to `[B, H, W, C]`."""
    shape = (y.shape[0], *geometry.sizes, kernel.shape[2] * geometry.groups)
    x = jax.ShapeDtypeStruct(shape, y.dtype)
    (dx,) = jax.linear_transpose(lambda x: forward(x, kernel, geometry), x)(y)
    return dx


def to_kernel(x: jax.Array, y: jax.Array, geometry: Geometry, dtype: Any) -> jax.Array:
    """The transpose of `forward` in the kernel: x and `[B, H', W', D]` to the kernel's shape.

    Args:
      dtype: of the sums, and of the result.
    """
    padding = [
        (before, window + (outputs - 1) * geometry.stride - size - before)
        for size, window, outputs, (before, _) in zip(
            geometry.sizes, geometry.window, y.shape[1:3], geometry.pads
        )
    ]
    return lax.conv_general_dilated(
        x,
        y,
        window_strides=(1, 1),
        padding=padding,
        rhs_dilation=(geometry.stride, geometry.stride),
        # Of x the channels are what is convolved one by one, and the examples what is summed.
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        batch_group_count=geometry.groups,
        preferred_element_type=dtype,
    )
