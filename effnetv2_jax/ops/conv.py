"""One 2-D convolution, lowered to what each platform runs fastest.

A convolution is linear in its input and in its kernel; so are its two gradients, and the gradients
of each of the three are the other two. They are primitives here: derivatives of any order, forward
and reverse, are made of them again, and each is lowered by itself. TPU and GPU run XLA's
convolutions; for what the CPU runs, see `ops/conv_cpu.py`.
"""

from typing import Any, Literal

from jax import Array
from jax.interpreters import ad
from jaxtyping import Float

from effnetv2_jax.ops import conv_cpu, conv_plain
from effnetv2_jax.ops.conv_geometry import Geometry
from effnetv2_jax.ops.per_platform import only_plain_operations, platform_primitive

Padding = Literal["same", "symmetric"]


def conv2d(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw C//{groups} D"],
    *,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "same",
) -> Float[Array, "B _ _ D"]:
    """Convolves with zeros around the image, so that only the stride reduces its size.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C / groups, D]`, of x's dtype or a wider one, which its gradient keeps.
      stride: the same along both axes.
      groups: 1, or C for a depthwise convolution.
      padding: `same` is TensorFlow's, at stride 2 asymmetric for even sizes; `symmetric` is
        PyTorch's, (k - 1) / 2 on every side for odd kernels.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), D]`, of x's dtype.
    """
    height, width = kernel.shape[:2]
    if (height, width) == (1, 1):
        # Such a kernel sees no pixel that the stride skips.
        x, stride = x[:, ::stride, ::stride], 1
    pads: Any = "SAME"
    if padding == "symmetric":
        pads = tuple(((size - 1) // 2, size // 2) for size in (height, width))
    geometry = Geometry((x.shape[1], x.shape[2]), (height, width), stride, pads, groups)
    if only_plain_operations():
        return conv_plain.forward(x, kernel, geometry)
    return _forward.bind(x, kernel, geometry=geometry)


_forward = platform_primitive("conv2d", conv_plain.forward, conv_cpu.forward)
_to_input = platform_primitive("conv2d_to_input", conv_plain.to_input, conv_cpu.to_input)
_to_kernel = platform_primitive("conv2d_to_kernel", conv_plain.to_kernel, conv_cpu.to_kernel)

# For each, what its cotangent does to its first operand and to its second: of x, kernel and y two
# are given, and a map gives the third.
ad.defbilinear(
    _forward,
    lambda dy, _, kernel, geometry: _to_input.bind(dy, kernel, geometry=geometry),
    lambda dy, x, kernel, geometry: _to_kernel.bind(
        x, dy, geometry=geometry, dtype=kernel.aval.dtype
    ),
)
ad.defbilinear(
    _to_input,
    lambda dx, _, kernel, geometry: _forward.bind(dx, kernel, geometry=geometry),
    lambda dx, y, kernel, geometry: _to_kernel.bind(
        dx, y, geometry=geometry, dtype=kernel.aval.dtype
    ),
)
ad.defbilinear(
    _to_kernel,
    lambda dkernel, _, y, geometry, dtype: _to_input.bind(y, dkernel, geometry=geometry),
    lambda dkernel, x, _, geometry, dtype: _forward.bind(x, dkernel, geometry=geometry),
)
