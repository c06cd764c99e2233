"""timm and PyTorch, imported where only PyTorch's CPU build may be installed."""

import sys
import types
from typing import Any


def import_timm() -> Any:
    """The modules `timm` and `torch`."""
    # timm imports torchvision; its CUDA build looks for operators that torch's CPU build lacks.
    sys.modules.setdefault(name := "torchvision._meta_registrations", types.ModuleType(name))
    import timm
    import torch

    return timm, torch
