"""Writes the checkpoints that `test_weights_torch_files.py` reads, by PyTorch.

PYTHONPATH=tests python tests/checkpoints/write_torch.py
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from test_weights_torch_files import ARRAYS, EXTRA

FOLDER = Path(__file__).parent


def content() -> dict[str, object]:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}
    large = torch.full((4, 6), -1.0)
    large[1:, ::2] = tensors["view"]
    tensors["view"] = large[1:, ::2]
    tensors["turned"] = tensors["turned"].T.contiguous().T
    tensors["parameter"] = torch.nn.Parameter(tensors["parameter"])
    tensors["bfloat16"] = tensors["bfloat16"].bfloat16()
    tensors["shared"] = tensors["parameter"].detach()
    return {
        "state_dict": tensors,
        "args": argparse.Namespace(model="tf_efficientnetv2_b0", path=Path("somewhere")),
        "epoch": EXTRA["epoch"],
        "best": np.float64(0.5),
        "device": torch.device("cpu"),
        "complex": torch.zeros(2, dtype=torch.complex64),
    }


if __name__ == "__main__":
    for name, zipped in (("archive", True), ("plain", False)):
        path = FOLDER / f"torch_{name}.pth"
        torch.save(content(), path, _use_new_zipfile_serialization=zipped)
