"""timm's models give the same logits with the same weights, whichever way these went."""

import sys
import types
from typing import Any

import jax
import numpy as np
import pytest

from effnetv2_jax import create_model
from effnetv2_jax.weights.convert import from_source, to_source
from effnetv2_jax.weights.sources import TIMM

torch = pytest.importorskip("torch", reason="timm's models are PyTorch's")
# timm imports torchvision, whose CUDA build looks for operators that a CPU build of torch lacks.
sys.modules.setdefault(name := "torchvision._meta_registrations", types.ModuleType(name))
timm = pytest.importorskip("timm", reason="the reference models are timm's")

pytestmark = pytest.mark.parity

CLASSES = 10
NAMES = {
    "efficientnetv2-b0": "tf_efficientnetv2_b0",
    "efficientnetv2-b3": "tf_efficientnetv2_b3",
    "efficientnetv2-s": "tf_efficientnetv2_s",
    "efficientnet-b0": "tf_efficientnet_b0",
    "efficientnet-b3": "tf_efficientnet_b3",
    "efficientnetv2-m": "tf_efficientnetv2_m",
    "efficientnetv2-l": "tf_efficientnetv2_l",
    "efficientnetv2-xl": "tf_efficientnetv2_xl",
    "efficientnet-b7": "tf_efficientnet_b7",
}
GAINS = {
    "efficientnet-b0": 2.4,
    "efficientnet-b3": 2.4,
    "efficientnetv2-l": 1.4,
    "efficientnetv2-xl": 1.3,
    "efficientnet-b7": 2.0,
}
"""Of the convolutions: squeeze-and-excitation damps, and depth amplifies also rounding errors."""
SLOW = ("efficientnetv2-m", "efficientnetv2-l", "efficientnetv2-xl", "efficientnet-b7")


def randomized(name: str, gain: float) -> Any:
    """timm's model, with every array drawn so that it matters and logits are of order 1."""
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            noise = torch.empty_like(value).normal_(generator=random)
            if value.ndim >= 2:
                value.copy_(noise * (gain / value[0].numel()) ** 0.5)
            elif key.endswith("running_var") or ("bn" in key and key.endswith("weight")):
                value.copy_(torch.empty_like(value).uniform_(0.5, 1.5, generator=random))
                # Keeps what residual connections add up from exploding.
                if key.endswith("weight") and ".0." not in key and "blocks" in key:
                    last = model.get_submodule(key.rsplit(".", 2)[0])
                    if key.split(".")[-2] == max(k for k, _ in last.named_children() if "bn" in k):
                        value.mul_(0.3)
            else:
                value.copy_(noise * 0.2)
    return model


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES],
)
def test_logits_equal_and_weights_return_bit_for_bit(name: str) -> None:
    theirs = randomized(NAMES[name], GAINS.get(name, 1.7))
    ours = create_model(name, num_classes=CLASSES)
    arrays = {key: value.numpy() for key, value in theirs.state_dict().items()}
    variables = from_source(ours, arrays, TIMM)

    images = np.random.default_rng(1).normal(size=(2, 64, 75, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    logits = np.asarray(jax.jit(ours.apply)(variables, images))
    size = np.abs(expected).max()
    assert expected.std() > 0.1, "such small logits hide faults"
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * size, "logits of biases hide faults"
    assert np.abs(logits - expected).max() < 1e-4 * size

    for key, value in to_source(ours, variables, TIMM).items():
        np.testing.assert_array_equal(value, arrays[key])
