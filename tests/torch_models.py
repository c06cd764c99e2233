"""PyTorch's models with weights of which every one matters, and what they make of images."""

import sys
import types
from typing import Any

import numpy as np
import torch
from PIL import Image
from random_weights import compiled

from effnetv2_jax import EfficientNet

# timm imports torchvision, whose CUDA build looks for operators that a CPU build of torch lacks.
sys.modules.setdefault(name := "torchvision._meta_registrations", types.ModuleType(name))


def randomize(model: Any, height: int, width: int) -> Any:
    """Draws every array of a model, and gives BatchNorm the statistics that go with them.

    With statistics of its own activations a network of any depth lets images through to its
    logits, as a trained one does. The classifier is scaled so that logits are of order 1.
    """
    random, damped = torch.Generator().manual_seed(0), []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                spread = module.weight[0].numel() ** -0.5
                module.weight.normal_(0, spread, generator=random)
                if module.bias is not None:
                    module.bias.normal_(0, 0.2, generator=random)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.normal_(0, 0.2, generator=random)
                module.momentum = 1.0
            if getattr(module, "has_skip", False) or getattr(module, "use_res_connect", False):
                # Deep networks of equal branches amplify even rounding errors.
                *_, last = (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d))
                damped.append(last)
        for last in damped:
            last.weight.mul_(0.2)
            last.bias.mul_(0.2)
        model.train()(to_torch(images(8, height, width, seed=2)))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # A channel that hardly moved on these images may move on others.
                assert module.running_var is not None
                module.running_var.add_(1e-3)
        logits = model.eval()(to_torch(images(2, height, width, seed=1)))
        *_, classifier = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
        classifier.weight.div_(logits.std())
    return model


def images(count: int, height: int, width: int, *, seed: int) -> np.ndarray:
    """Float32 `[B, H, W, 3]` of order 1: blurred and fine noise, so that means differ as well."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        drawn.append((smooth - 128) / 64 + random.normal(0, 0.3, (height, width, 3)))
    return np.stack(drawn).astype(np.float32)


def to_torch(batch: np.ndarray) -> Any:
    return torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())


def relative_error(
    theirs: Any, ours: EfficientNet, variables: Any, height: int, width: int
) -> float:
    """Largest difference of logits over the largest logit, on two images."""
    batch = images(2, height, width, seed=1)
    with torch.no_grad():
        expected = theirs(to_torch(batch).to(next(theirs.parameters()).dtype)).numpy()
    logits = np.asarray(compiled(ours)(variables, batch))
    size = np.abs(expected).max()
    assert 0.1 < expected.std() < 10, f"logits of order 1 show faults, not {expected.std()}"
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * size, "logits of biases hide faults"
    return float(np.abs(logits - expected).max() / size)
