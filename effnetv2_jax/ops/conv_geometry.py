"""Where a convolution's kernel stands on its input."""

from typing import Any, NamedTuple

from jax import lax


class Geometry(NamedTuple):
    """All about a 2-D convolution but for batch, channels and numbers."""

    sizes: tuple[Any, Any]
    """Height and width of the input; symbolic ones too."""
    window: tuple[int, int]
    """Height and width of the kernel."""
    stride: int
    padding: str | tuple[tuple[int, int], tuple[int, int]]
    """`SAME`, or the zeros before and after the rows, and before and after the columns."""
    groups: int
    """1, or the number of channels of a depthwise convolution."""

    @property
    def pads(self) -> list[tuple[Any, Any]]:
        """Zeros before and after the rows, and before and after the columns."""
        if isinstance(self.padding, str):
            strides = (self.stride, self.stride)
            return lax.padtype_to_pads(self.sizes, self.window, strides, self.padding)
        return list(self.padding)

    @property
    def outputs(self) -> tuple[Any, Any]:
        """Height and width of the output."""
        height, width = (
            (size + before + after - window) // self.stride + 1
            for size, window, (before, after) in zip(self.sizes, self.window, self.pads)
        )
        return height, width
