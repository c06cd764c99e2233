"""A step that overflows: the run halts before it, skips it, or goes back and around it."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from chaos import one_bright_picture
from chaos.one_bright_picture import BRIGHT, EVERY_STEPS, STEPS, bright_step
from chaos.runs import deterministic, events, last_metrics, launch, metrics, newest_checkpoint
from effnetv2_jax.config.experiment import Experiment, FaultsConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.train.divergence import LAG
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model

SEED = 5
"""The white picture comes at about half the run, and in the next order not after that."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    one_bright_picture.make_pictures(folder)
    return folder


def experiment(pictures: Path, faults: FaultsConfig) -> Experiment:
    return one_bright_picture.experiment(pictures, seed=SEED, faults=faults)


def newest_state(run: Experiment, workdir: Path) -> dict[str, np.ndarray]:
    """All of the newest checkpoint's leaves."""
    model, optimizer = build_model(run, 2), make_optimizer(run)
    with Checkpoints(workdir / "checkpoints", None) as checkpoints:
        like = abstract_state(run, model, optimizer, make_mesh())
        return tiny.leaves_by_name(checkpoints.restore(like.to_dict()))


def assert_finite(state: dict[str, np.ndarray]) -> None:
    for name, leaf in state.items():
        assert np.isfinite(leaf).all(), name


def test_a_run_that_diverges_halts_and_can_be_continued_by_skipping(
    pictures: Path, tmp_path: Path
) -> None:
    halting, workdir = experiment(pictures, FaultsConfig()), tmp_path / "run"
    step = bright_step(halting)
    (output,) = launch(halting, workdir).finish(3)
    assert f"step {step} diverged" in output
    assert "Traceback" not in output
    (diverged,) = events(workdir, "diverged")
    assert step <= diverged["step"] <= step + LAG
    assert f"step {step} diverged" in diverged["message"]
    assert any(BRIGHT in key for key in diverged["examples"])

    before = newest_checkpoint(workdir)
    assert before == (step - 1) // EVERY_STEPS * EVERY_STEPS
    assert_finite(newest_state(halting, workdir))

    skipping = experiment(pictures, FaultsConfig(on_divergence="skip"))
    launch(skipping, workdir).finish()
    assert [event["step"] for event in events(workdir, "start")] == [0, before]
    assert len(events(workdir, "diverged")) == 2
    assert newest_checkpoint(workdir) == STEPS
    assert_finite(newest_state(skipping, workdir))
    steps = [line["step"] for line in metrics(workdir) if "train/loss" in line]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_no_order_that_diverged_comes_again(pictures: Path, tmp_path: Path) -> None:
    # Without a checkpoint every order has the white picture in it.
    faults = FaultsConfig(on_divergence="roll_back", max_divergences=2)
    run = one_bright_picture.experiment(pictures, seed=SEED, faults=faults, every_steps=STEPS)
    workdir = tmp_path / "run"
    (output,) = launch(run, workdir).finish(3)
    assert "max_divergences" in output
    assert [event["salt"] for event in events(workdir, "rolled_back")] == [1, 2]
    steps = [event["diverged"] for event in events(workdir, "rolled_back")]
    assert steps[0] != steps[1]


@pytest.mark.slow
def test_a_run_that_went_back_and_is_killed_ends_as_one_that_is_not(
    pictures: Path, tmp_path: Path
) -> None:
    run = experiment(pictures, FaultsConfig(on_divergence="roll_back"))
    step = bright_step(run)
    back_to = (step - 1) // EVERY_STEPS * EVERY_STEPS
    undisturbed = tmp_path / "undisturbed"
    launch(run, undisturbed).finish()
    (rolled_back,) = events(undisturbed, "rolled_back")
    assert (rolled_back["step"], rolled_back["salt"]) == (back_to, 1)
    assert newest_checkpoint(undisturbed) == STEPS
    assert_finite(newest_state(run, undisturbed))

    killed = tmp_path / "killed"

    def kill_when(condition: Callable[[], bool]) -> None:
        started = launch(run, killed)
        while started.run() and not condition():
            time.sleep(0.002)
        assert started.run(), started.outputs()
        started.kill()

    # First with no checkpoint that knows the new order, then with one.
    kill_when(lambda: len(events(killed, "rolled_back")) == 1)
    assert newest_checkpoint(killed) == back_to
    kill_when(
        lambda: (
            len(events(killed, "rolled_back")) == 2
            and newest_checkpoint(killed) > back_to
            and last_metrics(killed)["step"] > newest_checkpoint(killed)
        )
    )
    launch(run, killed).finish()
    assert len(events(killed, "rolled_back")) == 2
    found, wanted = metrics(killed), metrics(undisturbed)
    assert found[-1]["params_sha256"] == wanted[-1]["params_sha256"]
    assert deterministic(found) == deterministic(wanted)
