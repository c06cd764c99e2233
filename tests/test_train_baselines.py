"""ResNets and vision transformers train, continue, and come back as EfficientNet does."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train_step import assert_same_state, run

from effnetv2_jax import load_pretrained
from effnetv2_jax.config import AugmentConfig, Experiment
from effnetv2_jax.models import resnet, vit
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.resnet import ResNetConfig
from effnetv2_jax.models.vit import ViTConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.progressive import Stage, linear
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

CONFIGS: list[Any] = [
    resnet.FAMILY.thin(ResNetConfig(name="resnet50")),
    resnet.FAMILY.thin(ResNetConfig(name="resnetrs50", stochastic_depth_rate=0.2)),
    vit.FAMILY.thin(ViTConfig(name="deit-s", stochastic_depth_rate=0.2)),
]
EACH = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def experiment(model: ModelConfig, **fields: Any) -> Experiment:
    """Four sizes, and no augmentation, which would only take time to compile."""
    stages = linear(
        4,
        first=Stage(image_size=32, dropout_rate=0.1),
        last=Stage(image_size=80, dropout_rate=0.3),
    )
    augment = AugmentConfig(policy="none", flip=False)
    return tiny.experiment(model=model, stages=stages, augment=augment, **fields)


def last_checkpoint(run: Experiment, workdir: Path) -> dict[str, np.ndarray]:
    mesh = make_mesh(jax.devices()[:1])
    like = abstract_state(run, build_model(run, 6), make_optimizer(run), mesh).to_dict()
    with Checkpoints(workdir / "checkpoints", None) as checkpoints:
        assert checkpoints.latest_step() == 8
        return tiny.leaves_by_name(checkpoints.restore(like))


@EACH
def test_four_sizes_in_turn_and_a_run_that_is_continued(config: Any, tmp_path: Path) -> None:
    whole = experiment(config)
    result = train(whole, tmp_path / "run")
    assert np.isfinite(list(result.values())).all()
    expected = last_checkpoint(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    assert train(whole, tmp_path / "run") == result
    found = last_checkpoint(whole, tmp_path / "run")
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)

    model, variables = load_pretrained(None, tmp_path / "run")
    assert model.config.architecture() == config.architecture()
    images = jnp.zeros((1, 48, 50, 3))
    assert jax.jit(model.apply)(variables, images).shape == (1, 6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: config.name)
def test_eight_devices_and_rematerialisation_change_no_number(config: Any) -> None:
    exact = in_float64(config)
    one = run(experiment(exact), steps=3)
    assert_same_state(run(experiment(exact), steps=3, devices=8), one, 1e-9)
    remat = dataclasses.replace(exact, remat="blocks")
    assert_same_state(run(experiment(remat), steps=3), one, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: config.name)
def test_parts_of_a_batch_have_the_gradients_of_the_whole(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each part draws for itself what dropout and stochastic depth leave out.
    monkeypatch.setattr(tiny, "STAGES", (Stage(image_size=32, mixup_alpha=0.2),))
    exact = dataclasses.replace(in_float64(config), stochastic_depth_rate=0.0)
    parts = run(experiment(exact, gradient_accumulation=2), steps=2)
    assert_same_state(parts, run(experiment(exact), steps=2), 1e-9)


def in_float64(config: Any) -> Any:
    groups = {"bn_group": 4} if isinstance(config, ResNetConfig) else {}
    return dataclasses.replace(config, dtype="float64", **groups)
