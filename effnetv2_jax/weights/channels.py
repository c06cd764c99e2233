"""First kernels for other channels of the images than they were trained with."""

import numpy as np


def adapted(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel for images of another number of channels, as timm adapts it.

    For one channel the kernel's are summed, so that a grey picture gives what it would as RGB (but
    for the normalisation). For others they are repeated in order and scaled, so that activations
    stay about as large.

    Args:
      kernel: `[kh, kw, C, D]`.
      channels: of the images.

    Returns:
      `[kh, kw, channels, D]`, of the kernel's dtype.
    """
    given = kernel.shape[2]
    if channels == given:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.take(kernel, np.arange(channels) % given, axis=2)
    return repeated * kernel.dtype.type(given / channels)


def told(given: int, channels: int) -> str:
    """What `adapted` does, in words."""
    how = "summed" if channels == 1 else f"repeated, and scaled by {given}/{channels}"
    return (
        f"the first kernel is for {given} channels, and the model takes {channels} "
        f"(input_channels): {how}"
    )
