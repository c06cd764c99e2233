"""The kind of device that recipes take their defaults for."""

import importlib.metadata
import subprocess
from collections.abc import Callable

import config_files
import pytest

from effnetv2_jax.system import accelerator

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Makes a machine of some packages, devices and GPUs' compute capabilities."""

    def make(packages: str = "", devices: str = "", capabilities: str = "") -> None:
        def distribution(name: str) -> object:
            if name not in packages.split():
                raise importlib.metadata.PackageNotFoundError(name)
            return object()

        def nvidia_smi(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
            if not capabilities:
                raise FileNotFoundError("nvidia-smi")
            return subprocess.CompletedProcess([], 0, stdout=capabilities)

        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(importlib.metadata, "distribution", distribution)
        monkeypatch.setattr(
            accelerator, "_any_device", lambda *patterns: devices in patterns and devices != ""
        )
        monkeypatch.setattr(subprocess, "run", nvidia_smi)
        accelerator._compute_capability.cache_clear()

    return make


@pytest.mark.parametrize(
    ("machine", "platform", "dtype"),
    [
        ({}, "cpu", "float32"),
        ({"devices": "nvidia[0-9]*", "capabilities": "8.0"}, "cpu", "float32"),  # JAX has no CUDA.
        ({"packages": "jax-cuda12-plugin"}, "cpu", "float32"),
        ({"packages": "libtpu", "devices": "accel[0-9]*"}, "tpu", "bfloat16"),
    ],
)
def test_it_takes_a_device_and_a_jax_for_it(
    here: Here, machine: dict[str, str], platform: str, dtype: str
) -> None:
    here(**machine)
    assert (accelerator.platform(), accelerator.fast_dtype()) == (platform, dtype)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [("7.5\n", "float32"), ("9.0\n", "bfloat16"), ("9.0\n7.5\n", "float32"), ("", "float32")],
)
def test_a_t4_has_no_bfloat16(here: Here, capabilities: str, dtype: str) -> None:
    here("jax-cuda12-plugin", "nvidia[0-9]*", capabilities)
    assert (accelerator.platform(), accelerator.fast_dtype()) == ("gpu", dtype)


def test_the_environment_decides_as_for_jax(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here("jax-cuda12-plugin", "nvidia[0-9]*", "9.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerator.platform() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert accelerator.platform() == "gpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert accelerator.platform() == "cpu"


def test_recipes_take_it(here: Here) -> None:
    here("jax-cuda12-plugin", "nvidia[0-9]*", "9.0")
    assert config_files.load("folder").model.dtype == "bfloat16"
    assert config_files.load("folder") == config_files.load("folder", "large")
    here("jax-cuda12-plugin", "nvidia[0-9]*", "7.5")
    assert config_files.load("finetune").model.dtype == "float32"
    here()
    assert config_files.load("folder") == config_files.load("folder", "small")
