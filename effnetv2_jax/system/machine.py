"""What a measurement or a run was made on."""

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from effnetv2_jax.system.cores import cores


def describe_machine(packages: Sequence[str]) -> dict[str, Any]:
    """Date, devices, processor and versions, as JSON values.

    Args:
      packages: names of distributions; those that are not installed are left out.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu": cpu_name(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": versions(packages),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of distributions by their name; those that are not installed are left out."""
    return {name: version for name in packages if (version := _version(name))}


def cpu_name() -> str:
    """The processor, as the system names it."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
