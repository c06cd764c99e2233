"""A head fitted to features: the best linear classifier, and a run of it alone."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from random_weights import random_variables, thin
from sklearn.linear_model import LogisticRegression

from effnetv2_jax import load_pretrained, save_pretrained
from effnetv2_jax.cli.command_line import parse
from effnetv2_jax.config import AugmentConfig, ConfigError, Experiment, ProbeConfig
from effnetv2_jax.config.checks import check_probe
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.data import open_sources
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.probe import PENALTIES, choose_penalty, fit_linear, label_shares

pytestmark = pytest.mark.usefixtures("quick_compilation")


def blobs(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in eight dimensions of very different scales, which overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.random.default_rng(7).normal(size=(3, 8))
    scales = np.logspace(-2, 2, 8)
    features = (centres[labels] + rng.normal(size=(count, 8))) * scales + 3 * scales
    return features.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_it_is_the_least_loss_that_scikit_learn_finds_too(l2: float) -> None:
    features, labels = blobs(300)
    found = fit_linear(features, label_shares(labels[:, None], 3), l2)
    scaled = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=2000)
    expected = theirs.fit(scaled, labels).predict_log_proba(scaled)
    logits = features @ found.kernel + found.bias
    np.testing.assert_allclose(jax.nn.log_softmax(logits), expected, atol=2e-3)


def test_another_penalty_may_begin_at_the_last_ones_fit() -> None:
    features, labels = blobs(300)
    targets = label_shares(labels[:, None], 3)
    cold = fit_linear(features, targets, 1e-2)
    warm = fit_linear(features, targets, 1e-2, fit_linear(features, targets, 1e-1))
    np.testing.assert_allclose(
        features @ warm.kernel + warm.bias, features @ cold.kernel + cold.bias, atol=1e-2
    )


def test_labels_have_equal_shares() -> None:
    shares = label_shares(np.array([[2, -1], [0, 1]]), 3)
    np.testing.assert_array_equal(shares, [[0, 0, 1], [0.5, 0.5, 0]])


def test_the_penalty_is_chosen_by_what_is_held_out() -> None:
    features, labels = blobs(300)
    targets = label_shares(labels[:, None], 3)
    apart = features + 20 * features.std(0) * (targets @ np.eye(3, 8, dtype=np.float32))
    weak, accuracy = choose_penalty(apart, targets)
    strong, chance = choose_penalty(apart, targets[np.random.default_rng(1).permutation(300)])
    assert (weak, strong) == (min(PENALTIES), max(PENALTIES))
    assert accuracy == 1
    assert 0.2 < chance < 0.5


def test_a_probe_needs_weights_and_a_softmax() -> None:
    probe = ProbeConfig(views=1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"init": "in1k", "loss": "sigmoid"}, "config.loss is sigmoid"),
        ({"init": "in1k", "probe": ProbeConfig(views=3)}, "must be 0, 1 or 2"),
        ({"init": "in1k", "probe": ProbeConfig(views=1, l2=0.0)}, "probe.l2 must be above 0"),
    ]
    for fields, message in cases:
        config = to_config_dict(tiny.experiment(**{"probe": probe, **fields}))
        with pytest.raises(ConfigError, match=message):
            from_config_dict(config)
    with pytest.raises(ConfigError, match=r"without config\.init"):
        check_probe(tiny.experiment(probe=probe))
    no_steps = dataclasses.replace(tiny.experiment(init="in1k"), epochs=0.0)
    with pytest.raises(ConfigError, match="epochs must be above 0"):
        from_config_dict(to_config_dict(no_steps))
    from_config_dict(to_config_dict(dataclasses.replace(no_steps, probe=probe)))


def probed(folder: Path, **fields: Any) -> Experiment:
    """A run of a fitted head alone, on 64 of the embedded pictures."""
    experiment = tiny.experiment(
        model=tiny.NAMED,
        init=str(folder),
        stages=(Stage(image_size=32),),
        augment=AugmentConfig(policy="none", flip=False),
        ema_decay=None,
        probe=ProbeConfig(views=2, l2=0.01),
        **fields,
    )
    data = dataclasses.replace(
        experiment.data, train_split="train[:64]", mean=None, std=None, interpolation=None
    )
    evaluation = dataclasses.replace(experiment.evaluation, image_size=None)
    return dataclasses.replace(experiment, epochs=0.0, data=data, evaluation=evaluation)


@pytest.mark.slow
def test_a_run_of_a_head_alone_and_its_continuation(tmp_path: Path) -> None:
    model = thin(num_classes=9, preprocessing=squashed(32))
    variables = random_variables(model)
    folder = save_pretrained(tmp_path / "weights", model, variables)
    experiment, workdir, said = probed(folder), tmp_path / "run", io.StringIO()
    result = train(experiment, workdir, progress=Progress(stream=said))
    assert "features of 64 pictures, 2 views of each" in said.getvalue()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0]

    # The head is the classifier of the backbone's features, and the rest is untouched.
    loaded, trained = load_pretrained(None, workdir)
    np.testing.assert_array_equal(
        trained["params"]["stem"]["conv"]["kernel"], variables["params"]["stem"]["conv"]["kernel"]
    )
    source, _ = open_sources(experiment.data)
    assert loaded.class_names == source.class_names

    # It can be evaluated, though its config then names no weights to start from.
    command = parse(["program", "--mode=eval", f"--workdir={workdir}"])
    assert not isinstance(command, str)
    assert not command.experiment.init

    # It is finished, with the same result, and goes on to more epochs from there.
    assert train(experiment, workdir) == result
    longer = dataclasses.replace(experiment, epochs=0.5)
    train(longer, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/raw_top1" in row] == [0, 2]
