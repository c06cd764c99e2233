"""torchvision's models give the same logits with the same weights, whichever way these went."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effnetv2_jax import WeightsError, load_pretrained, save_pretrained
from effnetv2_jax.models.efficientnet.published import TORCHVISION_PREPROCESSING
from effnetv2_jax.models.efficientnet.variants import VARIANTS

torch = pytest.importorskip("torch", reason="torchvision's models are PyTorch's")
from torch_models import randomize, relative_error  # noqa: E402

torchvision = pytest.importorskip("torchvision", reason="the reference models are torchvision's")

pytestmark = pytest.mark.parity

CLASSES = 10
SMALL = ("v2-s", "-b0")
"""Compared at the size of their evaluation."""


def builder(name: str) -> str:
    return name.replace("efficientnetv2-", "efficientnet_v2_").replace("-", "_")


def theirs(name: str, height: int, width: int) -> Any:
    model = torchvision.models.get_model(builder(name), weights=None, num_classes=CLASSES)
    return randomize(model, height, width)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name.endswith(SMALL) else [pytest.mark.long])
        for name in TORCHVISION_PREPROCESSING
    ],
)
def test_logits_equal_and_weights_return_bit_for_bit(name: str, tmp_path: Path) -> None:
    size = VARIANTS[name].eval_size
    # An even size, at which symmetric padding differs from TensorFlow's.
    height, width = (size, size) if name.endswith(SMALL) else (64, 74)
    model = theirs(name, height, width)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    ours, variables = load_pretrained(name, tmp_path / "weights.pth")
    assert relative_error(model, ours, variables, height, width) < 1e-4

    folder = save_pretrained(tmp_path / "saved", ours, variables, library="torchvision")
    from safetensors.torch import load_file

    empty = torchvision.models.get_model(builder(name), weights=None, num_classes=CLASSES)
    empty.load_state_dict(load_file(folder / "model.safetensors"))
    for key, value in empty.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        np.testing.assert_array_equal(value.numpy(), model.state_dict()[key].numpy())


def test_preprocessing_is_torchvisions() -> None:
    for name, ours in TORCHVISION_PREPROCESSING.items():
        settings = torchvision.models.get_model_weights(builder(name)).IMAGENET1K_V1.transforms()
        assert settings.crop_size == [ours.image_size]
        assert settings.resize_size == [ours.image_size + (ours.crop_padding or 0)]
        assert settings.interpolation.value == ours.interpolation
        assert settings.antialias == ours.antialias
        np.testing.assert_allclose(np.array(settings.mean) * 255, ours.mean)
        np.testing.assert_allclose(np.array(settings.std) * 255, ours.std)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "weights.pth"
    torch.save({"features.0.0.weight": Malicious(proof)}, path)
    with pytest.raises(WeightsError, match=r"weights.pth holds posix.system, which runs"):
        load_pretrained("efficientnetv2-s", path)
    path.write_bytes(pickle.dumps(Malicious(proof), protocol=2))
    with pytest.raises(WeightsError, match=r"weights.pth"):
        load_pretrained("efficientnetv2-s", path)
    assert not proof.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(share: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"features.0.0.weight": torch.zeros(64, 64)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"weights.pth"):
        load_pretrained("efficientnetv2-s", path)
    path.write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"weights.pth is no whole PyTorch file"):
        load_pretrained("efficientnetv2-s", path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match=r"weights.pth has no state dict"):
        load_pretrained("efficientnetv2-s", path)
