"""Four photographs to test with, from TrashNet (github.com/garythung/trashnet, MIT licence)."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image


def photographs(size: tuple[int, int], count: int) -> np.ndarray:
    """Decodes photographs; from the fifth on they repeat.

    Args:
      size: height and width.
      count: how many.

    Returns:
      uint8 [count, H, W, 3].
    """
    height, width = size
    files = sorted((Path(__file__).parent / "pictures").glob("*.jpg"))
    decoded = []
    for file in itertools.islice(itertools.cycle(files), count):
        with Image.open(file) as picture:
            decoded.append(np.asarray(picture.convert("RGB").resize((width, height))))
    return np.stack(decoded)
