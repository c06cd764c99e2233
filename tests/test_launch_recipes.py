"""The recipes of experiments/launch say what they mean, as far as that shows without a cloud."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from effnetv2_jax.cli.command_line import Command, parse
from effnetv2_jax.cli.search_command import SearchCommand, parse_search

REPOSITORY = Path(__file__).parent.parent
LAUNCH = REPOSITORY / "experiments" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
JOB_SETS = [LAUNCH / "gke_tpu.yaml", LAUNCH / "kubernetes_gpu.yaml"]
PAGE = REPOSITORY / "docs" / "launching.md"
PREEMPTED = 143
FINAL = [1, 2, 3]
"""Exit codes that another start would meet again."""


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def fenced(page: str) -> str:
    """What stands in the page's code blocks."""
    return "\n".join(re.findall(r"```(?:bash|yaml)\n(.*?)```", page, re.DOTALL))


def command_lines(text: str) -> list[list[str]]:
    """The arguments of every start of the program in shell text, comments left out."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*$", "", text))
    found = re.findall(r"-m (effnetv2_jax\.main [^\n;&|]*)", text)
    # A line that is itself in quotes brings the last of them along.
    return [shlex.split(line.removesuffix('"') if line.count('"') % 2 else line) for line in found]


def programs() -> list[tuple[str, list[str]]]:
    texts = {path.name: path.read_text() for path in [*SCRIPTS, LAUNCH / "skypilot.yaml"]}
    texts[PAGE.name] = fenced(PAGE.read_text())
    lines = [(name, line) for name, text in texts.items() for line in command_lines(text)]
    for path in JOB_SETS:
        command = container(load(path))["command"]
        assert command[:2] == ["python3", "-m"]
        lines.append((path.name, command[2:]))
    return lines


def container(job_set: dict[str, Any]) -> dict[str, Any]:
    (job,) = job_set["spec"]["replicatedJobs"]
    (found,) = job["template"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_there_are_recipes_and_all_are_on_the_page() -> None:
    page = PAGE.read_text()
    for path in LAUNCH.iterdir():
        assert f"experiments/launch/{path.name}" in page


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert path.stat().st_mode & 0o100


def test_the_pages_commands_are_shell() -> None:
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL))
    subprocess.run(["bash", "-n"], input=commands, text=True, check=True)


def test_every_command_line_is_understood() -> None:
    found = programs()
    assert {name for name, _ in found} == {path.name for path in LAUNCH.iterdir()} | {PAGE.name}
    for name, line in found:
        command = parse([argument.replace("$", "") for argument in line])
        assert isinstance(command, Command), name
        assert command.mode == "train"
        assert command.workdir


def test_every_search_is_understood() -> None:
    text = fenced(PAGE.read_text())
    job = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1])
    text += f"\n{job['spec']['entrypoint']}\n"
    text = re.sub(r"\\\n", " ", text)
    lines = re.findall(r"-m (effnetv2_jax\.search [^\n;&|]*--workdir[^\n;&|]*)", text)
    assert len(lines) == 3
    for line in lines:
        command = parse_search([word.replace("$", "") for word in shlex.split(line)])
        assert isinstance(command, SearchCommand)
        assert command.search.executor == "ray"


@pytest.mark.parametrize("path", JOB_SETS, ids=lambda path: path.name)
def test_job_sets_restart_what_a_restart_can_cure(path: Path) -> None:
    job_set = load(path)
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = job_set["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (job,) = job_set["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    assert spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": FINAL}}
    pod = spec["template"]["spec"]
    # Kubernetes takes a failure policy with no other restart policy.
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_pods_of_a_slice_hold_all_of_its_chips() -> None:
    job_set = load(JOB_SETS[0])
    (job,) = job_set["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    topology = spec["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    rows, columns = map(int, topology.split("x"))
    assert spec["parallelism"] * container(job_set)["resources"]["limits"]["google.com/tpu"] == (
        rows * columns
    )


def test_pods_without_rights_are_told_of_each_other() -> None:
    job_set = load(JOB_SETS[1])
    name = job_set["metadata"]["name"]
    (job,) = job_set["spec"]["replicatedJobs"]
    variables = {variable["name"]: variable for variable in container(job_set)["env"]}
    # JobSet's names of pods: set, job, number of the job, index of the pod; and its service's.
    address = f"{name}-{job['name']}-0-0.{name}:1234"
    assert variables["JAX_COORDINATOR_ADDRESS"]["value"] == address
    assert variables["JAX_NUM_PROCESSES"]["value"] == str(job["template"]["spec"]["parallelism"])
    index = variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_skypilot_recovers_from_preemption() -> None:
    task = load(LAUNCH / "skypilot.yaml")
    recovery = task["resources"]["job_recovery"]
    assert PREEMPTED in recovery["recover_on_exit_codes"]
    assert not set(FINAL) & set(recovery["recover_on_exit_codes"])
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)
    variables = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    script = task["run"].replace("exec python3", "env #")
    found = run(script, variables | {"SKYPILOT_NODE_RANK": "1"})
    assert found["JAX_COORDINATOR_ADDRESS"] == "10.0.0.1:1234"
    assert (found["JAX_NUM_PROCESSES"], found["JAX_PROCESS_ID"]) == ("2", "1")


def run(script: str, variables: dict[str, str]) -> dict[str, str]:
    """The environment that `env` in a script shows."""
    environment = {"PATH": "/usr/bin:/bin", **variables}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, text=True, check=True, capture_output=True
    )
    pairs = [line.partition("=") for line in done.stdout.splitlines()]
    return {name: value for name, _, value in pairs}


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder of commands that take the place of the cluster's, and note their calls."""
    for name in ("srun", "scontrol", "python3"):
        stub = tmp_path / name
        stub.write_text(
            f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/calls"\n'
            f'calls=$(grep -c "^{name} " "{tmp_path}/calls")\n'
            'statuses=($STATUSES)\nexit "${statuses[$((calls - 1))]:-0}"\n'
        )
        stub.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (3, False), (143, True)])
def test_slurm_requeues_what_was_preempted(status: int, requeued: bool, stubs: Path) -> None:
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", "HOME": "/home/me", "SLURM_JOB_ID": "4711"}
    done = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sh")], env=environment | {"STATUSES": str(status)}
    )
    calls = (stubs / "calls").read_text()
    assert ("scontrol requeue 4711" in calls) == requeued
    if not requeued:
        assert done.returncode == status


@pytest.mark.parametrize(("statuses", "ends_with"), [("143 143 0", 0), ("143 3", 3), ("1", 1)])
def test_by_hand_starts_again_after_preemption(statuses: str, ends_with: int, stubs: Path) -> None:
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", "FIRST": "10.0.0.1", "WORKDIR": "/runs/a"}
    done = subprocess.run(
        ["bash", str(LAUNCH / "by_hand.sh"), "1"], env=environment | {"STATUSES": statuses}
    )
    assert done.returncode == ends_with
    assert len((stubs / "calls").read_text().splitlines()) == len(statuses.split())
