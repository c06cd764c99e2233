"""Devices to compile for, at hand or not, and what they can hold and do."""

import dataclasses
import os
import re

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from effnetv2_jax.parallel.mesh import make_mesh

GIB = 2**30


class TopologyError(ValueError):
    """There is no such set of devices, or it cannot be compiled for here."""

    exit_status = 2


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one device."""

    memory: int | None
    """Bytes that a program may use; None where it is not known."""
    flops: float | None
    """bfloat16 operations a second, at best."""
    bandwidth: float | None
    """Bytes a second between memory and processor, at best."""


# As their makers state them, without sparsity; the first whose name is in the device's counts.
_KNOWN = (
    ("TPU v5 lite", Limits(int(15.75 * GIB), 197e12, 819e9)),
    ("TPU v5", Limits(95 * GIB, 459e12, 2765e9)),
    ("TPU v6 lite", Limits(int(31.25 * GIB), 918e12, 1640e9)),
    ("H200", Limits(None, 989e12, 4800e9)),
    ("H100", Limits(None, 989e12, 3350e9)),
    ("A100-SXM4-80GB", Limits(None, 312e12, 2039e9)),
    ("A100", Limits(None, 312e12, 1555e9)),
    ("L4", Limits(None, 121e12, 300e9)),
    ("A10", Limits(None, 125e12, 600e9)),
    ("V100", Limits(None, 125e12, 900e9)),
    ("T4", Limits(None, 65e12, 320e9)),
)
_TPU = re.compile(r"(v5e|v5p|v6e):(\d+)x(\d+)(?:x(\d+))?")


def find_mesh(topology: str) -> Mesh:
    """A mesh over all devices of a topology.

    Args:
      topology: `local` for the devices at hand, or a TPU slice such as `v5e:4x4`, for which no TPU
        is needed: its compiler comes with `pip install "jax[tpu]"`.

    Raises:
      TopologyError: there is no such topology, or its compiler is missing.
    """
    if topology == "local":
        return make_mesh()
    match = _TPU.fullmatch(topology)
    if not match:
        raise TopologyError(
            f"no topology {topology!r}; it is `local` or a TPU slice: v5e:4x4, v6e:2x2, v5p:2x2x2"
        )
    # Otherwise libtpu looks for a TPU on the network, and locks it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    sides = [int(side) for side in match.groups()[1:] if side]
    host = [min(2, side) for side in sides[:2]] + [1] * (3 - len(sides[:2]))
    try:
        devices = topologies.get_topology_desc(
            platform="tpu",
            topology_name=topology,
            chip_config_name="default",
            chips_per_host_bounds=tuple(host),
        ).devices
    except Exception as error:
        # Without libtpu it is a RuntimeError, of a slice that does not exist a JaxRuntimeError.
        raise TopologyError(
            f'cannot compile for {topology}: {error}; TPU slices need pip install "jax[tpu]"'
        ) from error
    return Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))


def limits_of(device: jax.Device) -> Limits:
    """Memory and peak rates of a device, as far as they are published."""
    named = (limits for name, limits in _KNOWN if name in device.device_kind)
    limits = next(named, Limits(None, None, None))
    if device.platform == "cpu":
        pages = os.sysconf("SC_PHYS_PAGES") // len(jax.local_devices())
        return dataclasses.replace(limits, memory=pages * os.sysconf("SC_PAGE_SIZE"))
    if device.platform == "gpu":
        return dataclasses.replace(limits, memory=(device.memory_stats() or {}).get("bytes_limit"))
    return limits
