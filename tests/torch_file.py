"""Writes PyTorch's files without PyTorch."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_torch_file(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A state dict of float32 tensors, as `torch.save` lays it out."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    content = b"\x80\x02}("
    with zipfile.ZipFile(path, "w") as file:
        for key, (name, array) in enumerate(arrays.items()):
            storage = b"(" + plain("storage") + b"ctorch\nFloatStorage\n"
            storage += plain(str(key)) + plain("cpu") + plain(array.size) + b"tQ"
            strides = tuple(stride // 4 for stride in np.ascontiguousarray(array).strides)
            content += plain(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
            content += b"".join(map(plain, (0, array.shape, strides, False, {}))) + b"tR"
            file.writestr(f"archive/data/{key}", array.astype("<f4").tobytes())
        file.writestr("archive/data.pkl", content + b"u.")
