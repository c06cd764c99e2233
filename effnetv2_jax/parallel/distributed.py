"""Whether this process is one of several, and how it meets the others.

JAX knows Slurm, Open MPI 4, TPU slices and Kubernetes. What it does not say, cheaply and without
asking others, is whether a start on one of these is one of several processes at all; and of a start
by hand it reads the address only. That, and clear errors, is what is added here.
"""

import dataclasses
import importlib.util
import os
import re
import threading
import urllib.request
from typing import Any, Literal

import jax

Distributed = Literal["auto", "on", "off"]

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_OWN_DEVICES = "JAX_LOCAL_DEVICE_IDS"


class StartupError(RuntimeError):
    """This process cannot meet the others of its run; the message says what to set."""

    exit_status = 1


class NobodyCame(StartupError):
    """The others could not be reached in time; they may be the next time."""

    exit_status = os.EX_TEMPFAIL


@dataclasses.dataclass(frozen=True)
class Start:
    """How one of several processes was started."""

    launcher: str
    """For people, such as `by Slurm`."""
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of `jax.distributed.initialize`, as far as JAX does not find them out itself."""


def join(distributed: Distributed = "auto", *, timeout: int = 300) -> None:
    """Meets the other processes of a run, if this process is one of several.

    Does nothing where JAX has been initialised for several processes already.

    Args:
      distributed: `auto` asks the environment, `on` makes it an error if that says nothing of other
        processes, `off` leaves this one alone.
      timeout: seconds to wait for the others.

    Raises:
      StartupError: the environment contradicts itself or `on`, or the others do not come.
    """
    if distributed == "off" or jax.distributed.is_initialized():
        return
    start = find_start()
    if start is None and distributed == "on":
        raise StartupError(
            "config.distributed is 'on', but nothing says that this process is one of several. "
            f"Start it with srun, mpirun, a Kubernetes JobSet or on a TPU slice, or set {ADDRESS} "
            f"(HOST:PORT of the first process), {COUNT} and {INDEX}; "
            "--config.distributed=auto trains alone"
        )
    if start is None:
        return
    _initialize(start, timeout)


def _initialize(start: Start, timeout: int) -> None:
    failure: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(initialization_timeout=2 * timeout, **start.arguments)
        except Exception as error:
            failure.append(error)

    # When JAX's own timeout ends, JAX aborts the program without a word of whom it waited for.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(timeout)
    reason = str(failure[0]) if failure else f"no answer within {timeout} s"
    if thread.is_alive() or failure:
        raise NobodyCame(
            f"this process was started as one of several ({start.launcher}), but cannot meet the "
            f"others at {_address()}: {reason}. Do all of them run, and can that host and port be "
            f"reached from here? {ADDRESS} states others; --config.distributed=off trains alone"
        ) from (failure[0] if failure else None)


def find_start() -> Start | None:
    """How this process was started, if as one of several.

    Only environment variables are read, and on a Cloud TPU VM the VM's own metadata.

    Raises:
      StartupError: the environment says so, but not enough to find the others.
    """
    start = None if _named(COUNT, INDEX) else _by_launcher()
    if start is None and _named(COUNT, INDEX, ADDRESS):
        return _by_variables("by hand", COUNT, INDEX)
    return start


def _by_launcher() -> Start | None:
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return _by_open_mpi()
    if all(f"SLURM_{name}" in os.environ for name in _SLURM):
        # Of the step: a shell that salloc opened in one has SLURM_NTASKS of the whole job.
        count = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"])
        return Start("by Slurm") if int(count) > 1 else None
    if (hosts := _tpu_hosts()) is not None:
        return Start("on a TPU slice") if hosts > 1 else None
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys():
        return _by_kubernetes()
    return None


_SLURM = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
"""What JAX needs, and what only processes have that srun starts."""


def _by_variables(launcher: str, count_name: str, index_name: str) -> Start | None:
    """A start that these variables and the address describe."""
    count = _whole_number(count_name)
    if count == 1:
        return None
    index, address = _whole_number(index_name), os.environ.get(ADDRESS) or None
    values = {ADDRESS: address, count_name: count, index_name: index}
    missing = [name for name, value in values.items() if value is None]
    if missing or count is None or index is None or address is None:
        given = [name for name in values if name not in missing]
        raise StartupError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set, but not "
            f"{' and '.join(missing)}; a start {launcher} needs {ADDRESS} (HOST:PORT of the "
            f"first process), {count_name} and {index_name}. --config.distributed=off trains alone"
        )
    if not re.fullmatch(r".+:\d+", address):
        raise StartupError(f"{ADDRESS} is {address!r}; write HOST:PORT, such as 10.0.0.1:1234")
    if not 0 <= index < count:
        raise StartupError(
            f"{index_name} is {index}, but with {count_name}={count} it is 0 to {count - 1}"
        )
    return Start(
        launcher,
        {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": index,
            # Or JAX would still look for a cluster, to learn which devices are this process's.
            "cluster_detection_method": "deactivate",
        },
    )


def _by_open_mpi() -> Start | None:
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        return Start("by Open MPI") if int(os.environ["OMPI_COMM_WORLD_SIZE"]) > 1 else None
    # From version 5 on, Open MPI does not say where the first process is.
    start = _by_variables("by Open MPI 5", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    if start is not None and _OWN_DEVICES not in os.environ:
        # One GPU each, as JAX has it with Open MPI 4 and Slurm.
        start.arguments["local_device_ids"] = int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])
    return start


def _tpu_hosts() -> int | None:
    """Hosts of all slices that this TPU VM belongs to; None if JAX finds no TPU here."""
    if "tpu" not in (jax.config.jax_platforms or ""):  # type: ignore[attr-defined]
        return None
    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    slices = os.environ.get("MEGASCALE_NUM_SLICES")
    if not workers:
        try:
            workers = _metadata("worker-network-endpoints")
            if not slices and "," not in workers:
                found = re.search(r"MEGASCALE_NUM_SLICES: *'?(\d+)", _metadata("tpu-env"))
                slices = found[1] if found else None
        except OSError:  # Not a VM of Google's.
            return None
    return len(workers.split(",")) * int(slices or 1)


def _by_kubernetes() -> Start:
    if importlib.util.find_spec("kubernetes") is None:
        raise StartupError(
            "this process is one of an indexed Kubernetes job: pip install 'jax[k8s]' lets JAX ask "
            f"for the others, or set {ADDRESS}, {COUNT} and {INDEX}. --config.distributed=off "
            "trains alone"
        )
    return Start("by Kubernetes")


def _named(*names: str) -> bool:
    """Whether any of these variables is set."""
    return any(os.environ.get(name) for name in names)


def _whole_number(name: str) -> int | None:
    value = os.environ.get(name)
    if not value:
        return None
    if not value.isdecimal():
        raise StartupError(f"{name} is {value!r}, which is not a whole number")
    return int(value)


def _metadata(name: str) -> str:
    """What the Cloud TPU VM's own server says of it; that server is on the machine."""
    host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")  # As JAX has it.
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(request, timeout=5) as response:
        return str(response.read(), "utf-8")


def _address() -> str:
    """Where JAX has looked for the first process, so far as it got."""
    from jax._src.distributed import global_state  # There is no public way to ask.

    return global_state.coordinator_address or os.environ.get(ADDRESS) or "an address unknown yet"
