"""XLA's convolution and its two gradients."""

import jax
from jax import lax

from effnetv2_jax.ops.conv_geometry import Geometry


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`[B, H, W, C]` and `[kh, kw, C / groups, D]` to `[B, H', W', D]`."""
    return lax.conv_general_dilated(
        x,
        kernel,
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


def to_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `forward` in the kernel: x and `[B, H', W', D]` to the kernel's shape."""
    shape = (*geometry.window, x.shape[-1] // geometry.groups, y.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    (dkernel,) = jax.linear_transpose(lambda kernel: forward(x, kernel, geometry), kernel)(y)
    return dkernel
