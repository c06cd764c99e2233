"""How a process finds out that it is one of several, and meets the others."""

import http.server
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from jax._src.clusters import ClusterEnv
from processes import Processes, by_hand, free_port

from effnetv2_jax.parallel.distributed import StartupError, find_start, join

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[001-004]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
"""As srun sets them for the last of four tasks."""
OPEN_MPI_4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
OPEN_MPI_5 = {name: value for name, value in OPEN_MPI_4.items() if "orte" not in name}
HAND = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


def without(variables: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that tells of no launcher."""
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "KUBERNETES_", "JOB_")):
            monkeypatch.delenv(name)
    for name in HAND:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def set_all(bare: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        (SLURM, "by Slurm"),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, "by Slurm"),
        (without(SLURM, "SLURM_STEP_NUM_TASKS"), "by Slurm"),
        (OPEN_MPI_4, "by Open MPI"),
        (OPEN_MPI_4 | SLURM | {"SLURM_NTASKS": "1"}, "by Open MPI"),
        (OPEN_MPI_5 | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, "by Open MPI 5"),
        (HAND, "by hand"),
        (HAND | SLURM | {"SLURM_PROCID": "0"}, "by hand"),
    ],
)
def test_one_of_several_by_our_count_and_by_jaxs(
    variables: dict[str, str], launcher: str, bare: pytest.MonkeyPatch
) -> None:
    set_all(bare, variables)
    start = find_start()
    assert start is not None
    assert start.launcher == launcher
    given = start.arguments
    if given.get("cluster_detection_method") == "deactivate":
        found = (given["coordinator_address"], given["num_processes"], given["process_id"])
        assert found == ("10.0.0.1:1234", 4, 3)
        assert given.get("local_device_ids") == (1 if "OMPI" in str(variables) else None)
    else:
        detected = ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, 1
        )
        address, processes, index, _ = detected
        assert address is not None
        assert address.split(":")[0] in ("node001", "10.96.0.1", "10.0.0.1")
        assert (processes, index) == (4, 3)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # srun -n 1; a batch script outside srun; salloc's shell on the login node, and in a step
        SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        without(SLURM, "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS") | {"SLURM_PROCID": "0"},
        {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        OPEN_MPI_5 | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        SLURM | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        HAND | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        # A pod that is not of an indexed job.
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_alone(variables: dict[str, str], bare: pytest.MonkeyPatch) -> None:
    set_all(bare, variables)
    assert find_start() is None
    join("auto")
    with pytest.raises(StartupError, match=r"config\.distributed is 'on'.*JAX_NUM_PROCESSES"):
        join("on")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (without(HAND, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"), "not JAX_NUM_PROCESSES and JAX_PRO"),
        (without(HAND, "JAX_PROCESS_ID"), "NUM_PROCESSES are set, but not JAX_PROCESS_ID;"),
        (without(HAND, "JAX_NUM_PROCESSES"), "but not JAX_NUM_PROCESSES;"),
        (without(HAND, "JAX_COORDINATOR_ADDRESS"), "but not JAX_COORDINATOR_ADDRESS;"),
        (HAND | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two', which is not a whole"),
        (HAND | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID is 4, but .* 0 to 3"),
        (HAND | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "write HOST:PORT"),
        (OPEN_MPI_5, "but not JAX_COORDINATOR_ADDRESS; a start by Open MPI 5 needs"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
            r"pip install 'jax\[k8s\]'",
        ),
    ],
)
def test_what_is_missing_is_named(
    variables: dict[str, str], message: str, bare: pytest.MonkeyPatch
) -> None:
    set_all(bare, variables)
    with pytest.raises(StartupError, match=message):
        join("auto")
    join("off")


MEET = """
import sys
from effnetv2_jax.parallel import startup
startup.start("on")
import jax
from jax.experimental import multihost_utils
total = multihost_utils.process_allgather(jax.numpy.array(jax.process_index() + 1)).sum()
collectives = jax.config.jax_cpu_collectives_implementation
print("met", jax.process_index(), jax.process_count(), jax.device_count(), total, collectives)
print("preempted", multihost_utils.reached_preemption_sync_point(1))
"""


def of_slurm() -> list[dict[str, str]]:
    job = SLURM | {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    port = str(free_port())
    job |= {"SLURM_STEP_NUM_TASKS": "2", "JAX_COORDINATOR_PORT": port}
    return [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]


def of_open_mpi(variables: dict[str, str]) -> list[dict[str, str]]:
    job = variables | {"OMPI_COMM_WORLD_SIZE": "2"}
    return [
        job | {"OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_LOCAL_RANK": str(i)}
        for i in range(2)
    ]


def of_open_mpi_4() -> list[dict[str, str]]:
    uri = "1531576320.0;tcp://127.0.0.1:34911"
    port = str(free_port())
    return of_open_mpi(OPEN_MPI_4 | {"OMPI_MCA_orte_hnp_uri": uri, "JAX_COORDINATOR_PORT": port})


def of_open_mpi_5() -> list[dict[str, str]]:
    address = f"127.0.0.1:{free_port()}"
    return of_open_mpi(OPEN_MPI_5 | {"JAX_COORDINATOR_ADDRESS": address})


@pytest.mark.parametrize(
    "own",
    [
        lambda: by_hand(2),
        of_slurm,
        pytest.param(of_open_mpi_4, marks=pytest.mark.slow),
        pytest.param(of_open_mpi_5, marks=pytest.mark.slow),
    ],
    ids=["by hand", "Slurm", "Open MPI 4", "Open MPI 5"],
)
@pytest.mark.usefixtures("bare")
def test_two_processes_meet_and_listen_for_preemption(
    own: Callable[[], list[dict[str, str]]], tmp_path: Path
) -> None:
    outputs = Processes("-c", MEET, folder=tmp_path, count=2, devices=2, own=own()).finish()
    for index, output in enumerate(outputs):
        assert f"met {index} 2 2 3 gloo" in output
        assert "preempted False" in output


@pytest.mark.usefixtures("bare")
def test_processes_that_do_not_come_are_waited_for_and_named(tmp_path: Path) -> None:
    script = """
import sys
from effnetv2_jax.parallel.distributed import StartupError, join
try:
    join(timeout=2)
except StartupError as error:
    print("error:", error)
    sys.exit(error.exit_status)
"""
    # Each of two whose other one is never started.
    starts = (by_hand(2)[0], by_hand(2)[1])
    alone = [Processes("-c", script, folder=tmp_path, own=[own]) for own in starts]
    for process in alone:
        (output,) = process.finish(status=os.EX_TEMPFAIL)
        assert "(by hand), but cannot meet the others at 127.0.0.1:" in output
        assert "no answer within 2 s" in output


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as a Cloud TPU VM's metadata server."""

    values: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        value = self.values.get(self.path.rpartition("/attributes/")[2])
        self.send_response(404 if value is None else 200)
        self.end_headers()
        self.wfile.write((value or "").encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def metadata_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


TPU = """
import os
import jax
from jax._src.clusters import ClusterEnv
from effnetv2_jax.parallel.distributed import find_start
os.environ.pop("TPU_SKIP_MDS_QUERY", None)  # JAX sets it, as there is no chip.
start = find_start()
print("start", start and start.launcher)
detected = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 5)
print("jax", *detected[:3])
"""
ALONE, FOUR = "start None\njax 127.0.0.1:8482 1 0", "start on a TPU slice\njax 127.0.0.1:8482 4 3"
FOUR_HOSTS = ",".join(["127.0.0.1"] * 4)


@pytest.mark.parametrize(
    ("variables", "metadata", "expected"),
    [
        ({}, {"worker-network-endpoints": "a:b:127.0.0.1", "agent-worker-number": "0"}, ALONE),
        ({}, {"worker-network-endpoints": FOUR_HOSTS, "agent-worker-number": "3"}, FOUR),
        (
            {},
            {
                "worker-network-endpoints": "127.0.0.1",
                "agent-worker-number": "0",
                "tpu-env": "X: '1'\nMEGASCALE_NUM_SLICES: '4'\nMEGASCALE_SLICE_ID: '3'\n"
                "MEGASCALE_COORDINATOR_ADDRESS: '127.0.0.1:8080'\n",
            },
            FOUR,
        ),
        ({"TPU_WORKER_HOSTNAMES": "127.0.0.1", "TPU_WORKER_ID": "0"}, {}, ALONE),
        ({"TPU_WORKER_HOSTNAMES": FOUR_HOSTS, "TPU_WORKER_ID": "3"}, {}, FOUR),
    ],
    ids=["a VM", "a slice", "slices of one host", "GKE, one host", "GKE, a slice"],
)
@pytest.mark.usefixtures("bare")
def test_tpu_vms(
    variables: dict[str, str],
    metadata: dict[str, str],
    expected: str,
    metadata_server: str,
    tmp_path: Path,
) -> None:
    Metadata.values = {"tpu-env": "X: '1'\n"} | metadata
    variables = {
        "JAX_FORCE_TPU_INIT": "1",
        "JAX_PLATFORMS": "tpu,cpu",
        "GCE_METADATA_IP": metadata_server,
        **variables,
    }
    (output,) = Processes("-c", TPU, folder=tmp_path, variables=variables).finish()
    assert expected in output
