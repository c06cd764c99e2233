"""Checkpoints survive what happens to training runs: kills, donation, other devices."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from effnetv2_jax.config.experiment import CheckpointConfig
from effnetv2_jax.outputs.checkpoints import CheckpointError, Checkpoints
from effnetv2_jax.outputs.state_checksum import state_checksum

CONFIG = CheckpointConfig()


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    ema: dict | None


def optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip(1.0), optax.adamw(1e-3))


def make_state(seed: int = 0, *, width: int = 8, ema: bool = True) -> State:
    key = jax.random.key(seed)
    params = {
        "stem": {"kernel": jax.random.normal(key, (3, width)), "bias": jnp.zeros(width)},
        "blocks": [{"scale": jnp.ones(2, jnp.bfloat16)}, {"scale": jnp.zeros(2, jnp.bfloat16)}],
    }
    return State(
        step=jnp.int32(seed),
        params=params,
        batch_stats={"stem": {"mean": jnp.full(width, 0.5)}},
        opt_state=optimizer().init(params),
        ema=jax.tree.map(lambda leaf: leaf + 1, params) if ema else None,
    )


def assert_same(actual: Any, expected: Any) -> None:
    assert str(jax.tree.structure(actual)) == str(jax.tree.structure(expected))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ema", [True, False])
def test_restores_what_was_saved(tmp_path: pathlib.Path, ema: bool) -> None:
    state = make_state(1, ema=ema)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.save(1, state, extra={"rolled_back": [[5, 1]]})
        assert_same(checkpoints.restore(make_state(2, ema=ema)), state)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        abstract = jax.eval_shape(make_state, 0) if ema else make_state(3, ema=False)
        assert_same(checkpoints.restore(abstract), state)
        assert checkpoints.extra() == {"rolled_back": [[5, 1]]}
        assert checkpoints.metrics() == {}


def test_a_relative_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Checkpoints("run/checkpoints", CONFIG) as checkpoints:
        checkpoints.save(1, make_state(1))
        assert_same(checkpoints.restore(make_state()), make_state(1))
    assert kept(tmp_path / "run" / "checkpoints") == [1]


def test_saves_a_step_once(tmp_path: pathlib.Path) -> None:
    state = make_state()
    with Checkpoints(tmp_path, CheckpointConfig(keep_last=9)) as checkpoints:
        assert checkpoints.save(10, state)
        assert checkpoints.save(24, state)
        assert not checkpoints.save(24, state)
        assert checkpoints.latest_step() == 24
    assert kept(tmp_path) == [10, 24]


def test_donating_the_state_after_saving_does_not_reach_the_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    train_step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    initial = {"weights": jnp.zeros((1024, 1024)), "step": jnp.int32(0)}
    state = train_step(initial)
    assert initial["weights"].is_deleted(), "without a save, the step takes the memory over"
    with Checkpoints(tmp_path, CheckpointConfig(keep_last=4)) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, state)
            for _ in range(4):
                state = train_step(state)
        for step in range(1, 5):
            restored = checkpoints.restore(state, step)
            assert int(restored["step"]) == 4 * step - 3
            np.testing.assert_array_equal(restored["weights"], 4 * step - 3)


def kept(directory: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir())


def test_keeps_the_last_and_the_best(tmp_path: pathlib.Path) -> None:
    state = {"weight": jnp.zeros(2)}
    top1 = {1: 0.2, 3: 0.7, 5: 0.6, 7: float("nan"), 9: 0.7}
    config = CheckpointConfig(keep_last=2, keep_best=1)

    def save(checkpoints: Checkpoints, step: int) -> None:
        metrics = {"top1": top1[step], "loss": 1.0} if step in top1 else None
        checkpoints.save(step, state, metrics=metrics)

    # Reopened halfway: what is best has to be known from the files.
    with Checkpoints(tmp_path, config) as checkpoints:
        for step in range(1, 6):
            save(checkpoints, step)
        assert checkpoints.best_step() == 3
        assert checkpoints.metrics(3) == {"top1": 0.7, "loss": 1.0}
    assert kept(tmp_path) == [3, 4, 5]
    with Checkpoints(tmp_path, config) as checkpoints:
        for step in range(6, 9):
            save(checkpoints, step)
        assert checkpoints.best_step() == 3
        assert kept(tmp_path) == [3, 7, 8]
        for step in range(9, 13):
            save(checkpoints, step)
        assert checkpoints.best_step() == 9, "of two equals the newer"
    assert kept(tmp_path) == [9, 11, 12]


def test_keeps_several_of_the_best(tmp_path: pathlib.Path) -> None:
    with Checkpoints(tmp_path, CheckpointConfig(keep_last=1, keep_best=2)) as all_:
        for step, top1 in enumerate([0.1, 0.9, 0.3, 0.8, 0.2], start=1):
            all_.save(step, {"weight": jnp.zeros(2)}, metrics={"top1": top1})
    assert kept(tmp_path) == [2, 4, 5]


def test_what_is_best_is_for_the_config_to_say(tmp_path: pathlib.Path) -> None:
    evaluations = {
        1: {"raw_top1": 0.9, "ema_top1": 0.5, "raw_loss": 0.1, "ema_loss": 0.7, "top1": 0.5},
        2: {"raw_top1": 0.4, "ema_top1": 0.8, "raw_loss": 0.2, "ema_loss": 0.6, "top1": 0.8},
        3: {"raw_top1": 0.5, "ema_top1": 0.6, "raw_loss": 0.3, "ema_loss": 0.5, "top1": 0.6},
    }
    by: Any
    for by, best in {"top1": 2, "raw_top1": 1, "loss": 3, "raw_loss": 1}.items():
        config = CheckpointConfig(keep_last=1, keep_best=1, best_by=by)
        with Checkpoints(tmp_path / by, config) as checkpoints:
            for step, metrics in evaluations.items():
                checkpoints.save(step, {"weight": jnp.zeros(2)}, metrics=metrics)
            assert checkpoints.best_step() == checkpoints.find("best") == best
        assert kept(tmp_path / by) == sorted({best, 3})
        # One who only reads learns it from the newest.
        with Checkpoints(tmp_path / by, None) as checkpoints:
            assert (checkpoints.best_by(), checkpoints.find("best")) == (by, best)
            assert checkpoints.find("last") == checkpoints.find(3) == 3
            with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
                checkpoints.find(7)


def test_an_evaluation_that_was_stopped_is_added_by_the_next_start(tmp_path: pathlib.Path) -> None:
    config = CheckpointConfig(keep_last=1, keep_best=1)
    state = {"weight": jnp.zeros(2)}
    with Checkpoints(tmp_path, config) as checkpoints:
        checkpoints.save(1, state, metrics={"top1": 0.5})
        checkpoints.save(2, state, extra={"salts": []})
        assert checkpoints.best_step() == 1
        with pytest.raises(CheckpointError, match="no checkpoint of step 3"):
            checkpoints.find(3)
    with Checkpoints(tmp_path, config) as checkpoints:
        assert not checkpoints.save(2, state, metrics={"top1": 0.9})
        assert checkpoints.best_step() == 2
        assert checkpoints.metrics(2) == {"top1": 0.9}
        assert not checkpoints.save(2, state, metrics={"top1": 0.1}), "which it has"
        for step in (3, 4):
            checkpoints.save(step, state)
        assert checkpoints.restore_newest(state, report=pytest.fail)[0] == 4
        assert checkpoints.extra(2) == {"salts": []}
    assert kept(tmp_path) == [2, 4]
    # Damage to it makes it as if it had never been.
    (tmp_path / "2" / "evaluation.json").write_text('{"metrics": {"top1": 1.0}, "checksum": 0}')
    with Checkpoints(tmp_path, None) as checkpoints:
        assert checkpoints.best_step() is None
        with pytest.raises(CheckpointError, match=r"was evaluated, and so none is the best"):
            checkpoints.find("best")


@pytest.mark.parametrize("keep_best", [0, 1])
def test_without_evaluations_only_the_last_are_kept(tmp_path: pathlib.Path, keep_best: int) -> None:
    config = CheckpointConfig(keep_last=2, keep_best=keep_best)
    with Checkpoints(tmp_path, config) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, {"weight": jnp.zeros(2)})
        assert checkpoints.best_step() is None
    assert kept(tmp_path) == [4, 5]


def test_restores_parts(tmp_path: pathlib.Path) -> None:
    state = make_state(1)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, state)
    with Checkpoints(tmp_path, None) as checkpoints:
        like = make_state(2)
        parts = checkpoints.restore_parts({"params": like.params, "ema": like.ema})
        assert_same(parts, {"params": state.params, "ema": state.ema})
        with pytest.raises(CheckpointError, match="head/kernel: absent in the checkpoint"):
            checkpoints.restore_parts({"head": {"kernel": jnp.zeros(3)}})


def test_errors_name_the_directory(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, None) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        with pytest.raises(CheckpointError, match=f"no checkpoint in {directory}"):
            checkpoints.restore(make_state())
        with pytest.raises(CheckpointError, match="reading only"):
            checkpoints.save(1, make_state())
    assert not directory.exists()
    with Checkpoints(directory, CONFIG) as checkpoints:
        checkpoints.save(1, make_state())
        with pytest.raises(
            CheckpointError, match=r"no checkpoint of step 3 in .*; there are \[1\]"
        ):
            checkpoints.restore(make_state(), 3)
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(make_state(width=16))
        message = str(caught.value)
        assert str(directory / "1") in message
        assert "params/stem/bias: float32[8] in the checkpoint, float32[16] now" in message, message
        assert message.endswith("and 4 more")
        with pytest.raises(CheckpointError, match=r"ema/stem/bias: .*, absent now"):
            checkpoints.restore(make_state(ema=False))


RESTORE_ON_ONE_DEVICE = """
    import sys
    import jax, numpy as np
    import jax.numpy as jnp
    from effnetv2_jax.config.experiment import CheckpointConfig
    from effnetv2_jax.outputs.checkpoints import Checkpoints

    assert jax.device_count() == 1
    like = {"sharded": jnp.zeros(16), "replicated": jax.ShapeDtypeStruct((3,), jnp.int32)}
    with Checkpoints(sys.argv[1], CheckpointConfig()) as checkpoints:
        state = checkpoints.restore(like)
        np.testing.assert_array_equal(state["sharded"], np.arange(16))
        np.testing.assert_array_equal(state["replicated"], np.arange(3))
        checkpoints.save(2, state)
"""


def test_from_eight_devices_to_one_and_back(
    tmp_path: pathlib.Path, mesh: jax.sharding.Mesh
) -> None:
    shardings = {
        "sharded": NamedSharding(mesh, PartitionSpec("data")),
        "replicated": NamedSharding(mesh, PartitionSpec()),
    }
    state = jax.device_put({"sharded": jnp.arange(16.0), "replicated": jnp.arange(3)}, shardings)
    train_step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, state)
        like = jax.tree.map(jnp.zeros_like, state)
        for _ in range(4):
            state = train_step(state)
    script = [sys.executable, "-c", textwrap.dedent(RESTORE_ON_ONE_DEVICE), str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(script, env=environment, check=True, timeout=120)
    with Checkpoints(tmp_path, None) as checkpoints:
        assert checkpoints.latest_step() == 2
        restored = checkpoints.restore(like)
        for name, first in (("sharded", np.arange(16)), ("replicated", np.arange(3))):
            assert restored[name].sharding == shardings[name]
            np.testing.assert_array_equal(restored[name], first)


SAVE_FOREVER = """
    import itertools, sys
    import jax.numpy as jnp
    from effnetv2_jax.config.experiment import CheckpointConfig
    from effnetv2_jax.outputs.checkpoints import Checkpoints

    config = CheckpointConfig(keep_last=2, keep_best=1)
    with Checkpoints(sys.argv[1], config) as checkpoints:
        first = (checkpoints.latest_step() or 0) + 1
        for step in itertools.count(first):
            state = {str(i): jnp.full((500, 500), step) for i in range(8)}
            checkpoints.save(step, state, metrics={"top1": 1 / step}, extra={"step": step})
            print(step, flush=True)
"""


def test_a_kill_amid_saving_leaves_whole_checkpoints(tmp_path: pathlib.Path) -> None:
    like = {str(i): jnp.zeros((500, 500), jnp.int32) for i in range(8)}
    command = [sys.executable, "-c", textwrap.dedent(SAVE_FOREVER), str(tmp_path)]
    for delay in (0.0, 0.013):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            started = max(int(process.stdout.readline()) for _ in range(5))
            time.sleep(delay)
            process.kill()
            started = max([started, *map(int, process.stdout.read().split())])
        assert process.returncode == -signal.SIGKILL

        with Checkpoints(tmp_path, None) as checkpoints:
            latest = checkpoints.latest_step()
            assert latest is not None
            # Saving a step begins only when the step before it is on disk.
            assert latest in (started - 1, started, started + 1)
            for step in {latest, checkpoints.best_step()}:
                state = checkpoints.restore(like, step)
                assert all(np.all(leaf == step) for leaf in state.values())
                assert checkpoints.extra(step) == {"step": step}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.best_step() == 1
        checkpoints.save(10_000, like)
    assert kept(tmp_path)[-1] == 10_000, "what the killed processes left is cleaned up"


@pytest.mark.parametrize("lost", ["state", "state/_METADATA", "state/d"])
def test_a_damaged_checkpoint_is_named(tmp_path: pathlib.Path, lost: str) -> None:
    state = {"weight": jnp.zeros(2)}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state)
    path = tmp_path / "2" / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with Checkpoints(tmp_path, None) as checkpoints:
        with pytest.raises(CheckpointError, match=rf"{tmp_path / '2'} cannot be read"):
            checkpoints.restore(state)
        assert_same(checkpoints.restore(state, 1), state)


def test_reading_leaves_unfinished_checkpoints_of_a_running_process_alone(
    tmp_path: pathlib.Path,
) -> None:
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(1, make_state())
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "data").write_text("half")
    with Checkpoints(tmp_path, None) as checkpoints:
        assert checkpoints.latest_step() == 1
    assert unfinished.exists()
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, make_state(2))
        assert_same(checkpoints.restore(make_state()), make_state(2))
    assert kept(tmp_path) == [1, 2]


@pytest.mark.usefixtures("x64")
def test_a_checksum_is_of_every_bit_and_of_nothing_else(mesh: jax.sharding.Mesh) -> None:
    values = {
        "bool": np.arange(16) % 3 == 0,
        "uint8": np.arange(16, dtype=np.uint8),
        "int32": np.arange(-8, 8, dtype=np.int32),
        "int64": np.arange(16, dtype=np.int64) << 40,
        "bfloat16": np.linspace(-1, 1, 16).astype(jnp.bfloat16),
        "float32": np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3),
        "float64": np.linspace(-1, 1, 16),
        "scalar": np.float32(3.0),
        "empty": np.zeros((0, 3), np.float32),
    }
    state = {"a": jax.device_put(values), "b": [jnp.ones(3), None], "c": None}
    checksum = state_checksum(state)
    assert checksum.keys() == {"a", "b"}
    assert state_checksum(dict(reversed(state.items()))) == checksum

    sharded = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    spread = {
        name: jax.device_put(value, sharded if value.size > 1 else replicated)
        for name, value in values.items()
    }
    assert state_checksum({"a": spread})["a"] == checksum["a"]

    for name, value in values.items():
        for bit in range(0, 8 * value.nbytes, 7):
            changed = np.array(value)
            if changed.dtype == np.bool_:
                changed[bit // 8] ^= True
            else:
                changed.reshape(-1).view(np.uint8)[bit // 8] ^= 1 << bit % 8
            other = state_checksum({"a": jax.device_put(values | {name: changed})})
            assert other["a"] != checksum["a"], (name, bit)
    swapped = values["float32"][[1, 0, *range(2, 16)]]
    for changes in ({"float32": swapped}, {"scalar": np.float64(3.0)}):
        assert state_checksum({"a": jax.device_put(values | changes)})["a"] != checksum["a"]
    renamed = {"d" if name == "bool" else name: value for name, value in values.items()}
    assert state_checksum({"a": jax.device_put(renamed)})["a"] != checksum["a"]
