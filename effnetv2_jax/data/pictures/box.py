"""Parts of a picture, and how EXIF orientation turns them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""[height, width, C], most often RGB."""

_TRANSPOSED = (5, 6, 7, 8)
_UPSIDE_DOWN = (3, 4, 7, 8)
_MIRRORED = (2, 3, 6, 7)
"""EXIF orientations; what is transposed is so first."""


class Box(NamedTuple):
    """A rectangle of whole pixels, inside the picture and not empty."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """The pixels inside, as a view."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes EXIF orientation 1 to 8, as a view; unknown values leave the picture as it is."""
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    return pixels


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width of a stored picture after `turn`."""
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def stored_box(box: Box, orientation: int, height: int, width: int) -> Box:
    """Where a box of the turned picture lies in the stored one of this height and width."""
    top, left, rows, columns = box
    height, width = turned_size(height, width, orientation)
    if orientation in _MIRRORED:
        left = width - left - columns
    if orientation in _UPSIDE_DOWN:
        top = height - top - rows
    if orientation in _TRANSPOSED:
        return Box(left, top, columns, rows)
    return Box(top, left, rows, columns)
