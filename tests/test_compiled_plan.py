"""What the plan says of compiled steps, against what they take when they run."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import environment

from effnetv2_jax.cli.compiled_plan import describe_compiled
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import AugmentConfig
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.parallel.topology import Limits, TopologyError, find_mesh, limits_of
from effnetv2_jax.progressive import PlannedStage
from effnetv2_jax.train.costs import StepCost, batch_unit, largest_batch, step_costs

LIBTPU = importlib.util.find_spec("libtpu") is not None


def cost(images: int = 8, memory: int = 100, *, fits: bool = True) -> StepCost:
    return StepCost(images, memory, fits, flops=4e9, bytes=1e8, compile_seconds=1.0)


def planned(batch: int) -> PlannedStage:
    stages = tiny.experiment(batch_size=batch, epochs=1.0).plan(2016).stages
    return stages[0]


@given(
    fixed=st.integers(0, 500),
    each=st.integers(1, 30),
    room=st.integers(0, 3000),
    start=st.integers(1, 64),
    unit=st.sampled_from([1, 2, 8]),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_the_largest_batch_is_the_last_that_fits(
    fixed: int, each: int, room: int, start: int, unit: int
) -> None:
    tried: list[int] = []

    def costs(stage: PlannedStage) -> StepCost:
        tried.append(stage.batch_size)
        images = stage.batch_size // 4
        memory = fixed + each * images
        return cost(images, memory, fits=memory <= room)

    stage = dataclasses.replace(planned(32), batch_size=start * unit * 4)
    found = largest_batch(costs, stage, devices=4, unit=unit)
    assert found % unit == 0
    assert found == max(0, (room - fixed) // each // unit * unit)
    assert len(tried) == len(set(tried))  # a compilation takes minutes


def test_the_slower_of_computing_and_moving_bounds_a_step() -> None:
    assert cost().seconds_per_image(Limits(1, 4e12, 1e12)) == (1e-3, "compute")
    assert cost().seconds_per_image(Limits(1, 4e12, 1e10)) == (1e-2, "memory traffic")
    assert cost().seconds_per_image(Limits(1, None, None)) is None


def test_a_batch_grows_by_whole_groups_and_parts() -> None:
    model = dataclasses.replace(tiny.MODEL, bn_group=16)
    experiment = tiny.experiment(
        model=model, gradient_accumulation=3, augment=AugmentConfig(mix_group=64)
    )
    unit = batch_unit(experiment, devices=2)
    assert unit == 96
    from_config_dict(to_config_dict(dataclasses.replace(experiment, batch_size=2 * unit)))
    with pytest.raises(ConfigError):
        from_config_dict(to_config_dict(dataclasses.replace(experiment, batch_size=unit)))


@pytest.mark.usefixtures("quick_compilation")
def test_one_table_row_for_each_stage() -> None:
    lines = list(describe_compiled(tiny.experiment(), "local"))
    assert lines[0].startswith(f"{jax.device_count()} x cpu, ")
    header, *rows = lines[3:]
    assert "GFLOP/image" in header
    assert [row.split()[:3] for row in rows] == [
        ["1", "32", str(16 // jax.device_count())],
        ["2", "40", str(16 // jax.device_count())],
    ]


@pytest.mark.usefixtures("quick_compilation")
def test_accumulation_needs_less_memory_for_the_same_work() -> None:
    mesh = make_mesh(jax.devices()[:1])
    experiment = tiny.experiment(augment=AugmentConfig(policy="none", mix_group=4))
    stage = planned(16)
    whole = step_costs(experiment, mesh, num_classes=6)(stage)
    accumulated = dataclasses.replace(experiment, gradient_accumulation=4)
    parts = step_costs(accumulated, mesh, num_classes=6)(stage)
    assert parts.memory < whole.memory
    assert parts.flops is not None
    assert whole.flops is not None
    assert 0.8 < parts.flops / whole.flops < 1.5  # the optimizer's share is counted four times


@pytest.mark.parametrize("topology", ["v5e", "v2:2x2", "gpu", "v5e:0", "v5e:3x5"])
def test_a_topology_that_does_not_exist(topology: str) -> None:
    with pytest.raises(TopologyError, match=topology):
        find_mesh(topology)


@pytest.mark.skipif(LIBTPU, reason="the compiler for TPU is installed")
def test_without_the_compiler_for_tpu() -> None:
    with pytest.raises(TopologyError, match=r"jax\[tpu\]"):
        find_mesh("v5e:2x2")


@pytest.mark.skipif(not LIBTPU, reason="needs libtpu: pip install jax[tpu]")
def test_a_step_compiles_for_a_tpu_slice() -> None:
    mesh = find_mesh("v5e:2x2")
    assert mesh.size == 4
    limits = limits_of(mesh.devices.flat[0])
    found = step_costs(tiny.experiment(), mesh, num_classes=6)(planned(16))
    assert found.images == 4
    assert limits.memory is not None
    assert 0 < found.memory < limits.memory
    assert found.seconds_per_image(limits) is not None


def test_batches_have_to_divide_over_the_topology() -> None:
    experiment = tiny.experiment(batch_size=12, augment=AugmentConfig(mix_group=4))
    with pytest.raises(ConfigError, match="batch_size is 12"):
        list(describe_compiled(experiment, "local"))


MEASURE = """
import json, sys
import jax, tiny
from effnetv2_jax.train.costs import step_costs
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values
from effnetv2_jax.train.costs import needed_memory
from effnetv2_jax.models.efficientnet import EfficientNetConfig
import dataclasses

def status(field):
    return int(open("/proc/self/status").read().split(field + ":")[1].split()[0]) * 1024

model = EfficientNetConfig(name="efficientnetv2-b0", depth=0.1, dtype="float32")
experiment = tiny.experiment(model=model)
mesh = make_mesh(jax.devices()[:1])
model, optimizer = build_model(experiment, 6), make_optimizer(experiment)
train_step = make_train_step(experiment, model, optimizer, mesh)
stage = experiment.plan(2016).stages[0]
stage = dataclasses.replace(stage, stage=dataclasses.replace(stage.stage, image_size=256))
state = create_state(experiment, model, optimizer, mesh)
compiled = compile_step(train_step, stage, state, mesh, max_labels=1)
batch = put_batch(tiny.random_batch(256), mesh)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = status("VmRSS")
values = as_float32(step_values(stage.stage, 0.1))
jax.block_until_ready(compiled(state, batch, values, key_of(0)))
held = compiled.memory_analysis().argument_size_in_bytes
print(json.dumps({"planned": needed_memory(compiled), "taken": status("VmHWM") - before + held}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_is_what_a_step_takes() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env=environment(),  # More threads would pack more convolutions.
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["planned"] > 3e8
    assert found["planned"] < found["taken"] < 1.15 * found["planned"]
