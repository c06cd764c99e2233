"""Starting from weights, training a part of them, and BatchNorm that stands still."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import tiny
from mixer_family import MixerConfig
from random_weights import random_variables, thin, write_run

from effnetv2_jax import StageSpec, WeightsError, load_pretrained, preprocess, save_pretrained
from effnetv2_jax.config import AugmentConfig, ConfigError, Experiment
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.data import open_source
from effnetv2_jax.main import main
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.registry import family_of_model, model_of
from effnetv2_jax.outputs.workdir import read_preprocessing
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.preprocessing import cropped
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.evaluate_weights import evaluate_init
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.rates import Rates, counts, trained_params, with_trained
from effnetv2_jax.train.state import TrainState, build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values

pytestmark = pytest.mark.usefixtures("quick_compilation")

OWN_TABLE = (
    StageSpec("fused", 3, 2, 1, 8, 1),
    StageSpec("mbconv", 5, 2, 2, 16, 2, 0.5),
)
PREPROCESSING = dataclasses.replace(cropped(40), mean=(1.0, 2.0, 3.0))
CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
"""Of the embedded pictures."""
MODEL = thin(num_classes=6, preprocessing=PREPROCESSING, class_names=CLASSES)
VARIABLES = random_variables(MODEL)


def plain(**fields: Any) -> Experiment:
    """One stage without augmentation, which would only take time to compile."""
    fields = {"model": tiny.NAMED, "augment": AugmentConfig(policy="none", flip=False)} | fields
    return tiny.experiment(stages=(Stage(image_size=32),), **fields)


def after_steps(experiment: Experiment, *, steps: int = 2) -> tuple[Any, TrainState]:
    """The state before and after some steps, as NumPy arrays."""
    mesh = make_mesh(jax.devices()[:1])
    model = build_model(experiment, 6)
    optimizer = make_optimizer(experiment)
    train_step = make_train_step(experiment, model, optimizer, mesh)
    state = create_state(experiment, model, optimizer, mesh, VARIABLES)
    before = jax.tree.map(np.asarray, state)
    for seed in range(steps):
        batch = put_batch(tiny.random_batch(32, seed=seed), mesh)
        values = as_float32(step_values(experiment.stages[0], 0.01))
        state, _ = train_step(state, batch, values, key_of(experiment.seed))
    return before, jax.tree.map(np.asarray, state)


def moved(before: Any, after: Any) -> dict[str, bool]:
    old, new = tiny.leaves_by_name(before), tiny.leaves_by_name(after)
    return {name: not np.array_equal(old[name], new[name]) for name in old}


def only(pattern: str) -> Rates:
    return ((pattern, 1.0), (".*", 0.0))


@pytest.mark.parametrize("pattern", [r"^(head|classifier)/", "kernel$"])
def test_only_what_is_trained_moves(pattern: str) -> None:
    before, after = after_steps(plain(rates=only(pattern)))
    trained = tiny.leaves_by_name(trained_params(before.params, only(pattern)))
    for name, has_moved in moved(before.params, after.params).items():
        assert has_moved == (name in trained), name
    # The optimizer holds nothing for the others, and averages do not drift.
    slots = sum(leaf.size for leaf in jax.tree.leaves(after.opt_state))
    assert slots == 2 * sum(leaf.size for leaf in trained.values())
    for name, has_moved in moved(before.ema["params"], after.ema["params"]).items():
        assert has_moved == (name in trained), name


def test_no_gradient_is_computed_for_what_stays() -> None:
    def floating_point_operations(rates: Rates) -> float:
        experiment = plain(rates=rates)
        mesh = make_mesh(jax.devices()[:1])
        model, optimizer = build_model(experiment, 6), make_optimizer(experiment)
        state = create_state(experiment, model, optimizer, mesh, VARIABLES)
        step: Any = make_train_step(experiment, model, optimizer, mesh)
        batch = put_batch(tiny.random_batch(32), mesh)
        values = as_float32(step_values(experiment.stages[0], 0.01))
        compiled = step.lower(state, batch, values, key_of(experiment.seed)).compile()
        return compiled.cost_analysis()["flops"]

    assert floating_point_operations(only("classifier")) < 0.6 * floating_point_operations(())


def test_an_expression_that_wins_nothing_shows_what_paths_look_like() -> None:
    with pytest.raises(ConfigError, match=r"rates\[0\] has 'blokcs', .* path; .* stem/conv/kernel"):
        after_steps(plain(rates=only("blokcs")), steps=0)
    later = (("classifier", 2.0), ("bias", 1.0), ("classifier/bias", 0.5))
    with pytest.raises(ConfigError, match=r"rates\[2\] .* path that those before it left; they"):
        after_steps(plain(rates=later), steps=0)
    with pytest.raises(ConfigError, match="factor 0 for all parameters"):
        after_steps(plain(rates=((".*", 0.0),)), steps=0)
    config = to_config_dict(tiny.experiment(rates=(("(", 1.0),)))
    with pytest.raises(ConfigError, match="no regular expression"):
        from_config_dict(config)


def test_the_first_expression_wins() -> None:
    params = VARIABLES["params"]
    rates = (("^classifier/bias$", 2.0), ("^classifier/", 0.0), ("bias", 0.5))
    sizes = {name: leaf.size for name, leaf in tiny.leaves_by_name(params).items()}
    of_classifier = {name: size for name, size in sizes.items() if name.startswith("['classifier")}
    biases = sum(size for name, size in sizes.items() if "bias" in name)
    assert counts(params, rates) == [
        of_classifier["['classifier']['bias']"],
        of_classifier["['classifier']['kernel']"],
        biases - of_classifier["['classifier']['bias']"],
    ]


def test_trained_parameters_go_back_where_they_came_from() -> None:
    params = VARIABLES["params"]
    trained = jax.tree.map(lambda leaf: leaf + 1, trained_params(params, only("bias")))
    whole = with_trained(params, trained)
    assert tiny.leaves_by_name(whole).keys() == tiny.leaves_by_name(params).keys()
    for name, has_moved in moved(params, whole).items():
        assert has_moved == ("bias" in name)


def test_frozen_batchnorm_does_not_move_and_is_what_evaluation_uses() -> None:
    model = dataclasses.replace(tiny.NAMED, bn_frozen=True, stochastic_depth_rate=0.0)
    before, after = after_steps(plain(model=model))
    assert not any(moved(before.collections, after.collections).values())
    assert not any(moved(before.ema["batch_stats"], after.ema["batch_stats"]).values())
    assert all(moved(before.params, after.params).values())
    frozen = build_model(tiny.experiment(model=model), 6)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    in_training, _ = frozen.apply(
        VARIABLES,
        images,
        train=True,
        dropout_rate=0.0,
        rngs={"dropout": jax.random.key(0)},
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(in_training, frozen.apply(VARIABLES, images), rtol=1e-5, atol=1e-6)
    assert any(moved(*(state.collections for state in after_steps(plain()))).values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pretrained(tmp_path / "weights", MODEL, VARIABLES)


def from_weights(folder: Path | str, **fields: Any) -> Experiment:
    """A run that leaves the preprocessing to the weights."""
    experiment = plain(init=str(folder), **fields)
    data = dataclasses.replace(experiment.data, mean=None, std=None, interpolation=None)
    evaluation = dataclasses.replace(experiment.evaluation, image_size=None)
    return dataclasses.replace(experiment, data=data, evaluation=evaluation)


def test_a_run_starts_from_weights_and_continues_without_them(folder: Path, tmp_path: Path) -> None:
    experiment = from_weights(folder, rates=only("classifier"))
    workdir = tmp_path / "run"
    model, variables = initial_model(experiment, CLASSES, workdir)
    jax.tree.map(np.testing.assert_array_equal, variables, VARIABLES)
    assert model.preprocessing == PREPROCESSING
    result = train(experiment, workdir)
    assert read_preprocessing(workdir) == PREPROCESSING
    # Trained from the weights: all but the classifier is still as it was.
    loaded, trained = load_pretrained(None, workdir)
    assert loaded.preprocessing == PREPROCESSING
    stem = trained["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(stem, VARIABLES["params"]["stem"]["conv"]["kernel"])
    # What is complete, or begun, asks for the weights no more.
    shutil.rmtree(folder)
    assert train(experiment, workdir)["ema_top1"] == result["ema_top1"]
    for step in (workdir / "checkpoints").iterdir():
        if step.name == "8":
            shutil.rmtree(step)
    again = train(experiment, workdir)
    assert again["ema_loss"] == pytest.approx(result["ema_loss"], rel=1e-6)


def test_another_number_of_classes_gets_a_new_classifier(folder: Path, tmp_path: Path) -> None:
    model, variables = initial_model(from_weights(folder), "abcdefghi", tmp_path / "run")
    assert model.num_classes == 9
    assert variables is not None
    assert variables["params"]["classifier"]["bias"].shape == (9,)
    seeded = dataclasses.replace(from_weights(folder), seed=1)
    other = initial_model(seeded, "abcdefghi", tmp_path / "run")[1]
    assert other is not None
    assert moved(variables["params"]["classifier"], other["params"]["classifier"])["['kernel']"]


def test_classes_that_differ_get_a_new_classifier_too(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = VARIABLES["params"]["classifier"]["kernel"]
    for names, kept in ((CLASSES, True), (CLASSES[::-1], False)):
        _, variables = initial_model(from_weights(folder), names, tmp_path / "run")
        assert variables is not None
        assert np.array_equal(variables["params"]["classifier"]["kernel"], kernel) == kept
        assert ("the classifier starts anew, with 6 classes" in caplog.text) != kept


def test_weights_in_init_are_evaluated_as_they_are(folder: Path) -> None:
    (result,) = evaluate_init(from_weights(folder)).values()
    assert result["examples"] == 40
    source = open_source(tiny.experiment().data, "eval")
    pictures, labels = zip(*((source[i].encoded, source[i].labels[0]) for i in range(40)))
    # TFDS's pictures are not turned as their EXIF orientation says.
    images = preprocess(pictures, like=MODEL, exif=False)
    logits = jax.jit(MODEL.apply)(VARIABLES, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, np.array(labels))
    assert result["raw_loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    assert result["raw_top1"] == pytest.approx(float((logits.argmax(1) == np.array(labels)).mean()))
    renamed = save_pretrained(
        folder.parent / "six", MODEL.clone(class_names=CLASSES[::-1]), VARIABLES
    )
    with pytest.raises(WeightsError, match="tells 6 classes apart, which are not the 6 of"):
        evaluate_init(from_weights(renamed))
    seven = thin(num_classes=7)
    other = save_pretrained(folder.parent / "seven", seven, random_variables(seven))
    with pytest.raises(
        WeightsError, match=r"tells 7 classes apart, which are not the 6 of .*; train on it"
    ):
        evaluate_init(from_weights(other))


@pytest.mark.parametrize(
    ("init", "complaint"),
    [
        ("nowhere", "there are no weights 'nowhere'"),
        ("in21k", "efficientnetv2-b0 has no weights 'in21k'; it has in1k"),
    ],
)
def test_weights_that_are_not_there_leave_no_workdir(
    init: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parent.parent / "configs" / "quickstart.py"
    arguments = [f"--config={config}", f"--config.init={init}", f"--workdir={tmp_path / 'run'}"]
    assert main(["effnetv2_jax", *arguments]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_of_another_width_or_padding_are_refused(folder: Path, tmp_path: Path) -> None:
    for model, complaint in (
        (EfficientNetConfig(name="efficientnetv2-b0"), "width=0.1, but the model has 1.0"),
        (dataclasses.replace(tiny.NAMED, padding="symmetric"), "the model has 'symmetric'"),
        (dataclasses.replace(tiny.NAMED, name="efficientnetv2-s"), "not of efficientnetv2-s"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            initial_model(from_weights(folder, model=model), CLASSES, tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "other", "field"),
    [
        (
            EfficientNetConfig(name="efficientnetv2-b0", stages=OWN_TABLE, stem=8),
            EfficientNetConfig(name="efficientnetv2-b0", stages=OWN_TABLE[::-1], stem=8),
            r"stages\[0\].operator='fused', but the model has 'mbconv'; .*config.model.stages",
        ),
        (
            MixerConfig(width=8),
            MixerConfig(),
            "width=8, but the model has 16; .*model.width",
        ),
        (MixerConfig(width=8), EfficientNetConfig(), "of mixer-tiny, not of efficientnetv2-s"),
    ],
)
def test_a_run_begins_from_a_run_of_the_same_network(
    model: Any, other: Any, field: str, tmp_path: Path
) -> None:
    network = model_of(model, num_classes=6, class_names=CLASSES, preprocessing=PREPROCESSING)
    raw, averages = random_variables(network, seed=1), random_variables(network, seed=2)
    init = f"workdir:{write_run(tmp_path / 'run', network, raw, averages)}"
    found, variables = initial_model(from_weights(init, model=model), CLASSES, tmp_path / "new")
    assert variables is not None
    jax.tree.map(np.testing.assert_array_equal, variables, averages)
    assert (found.config, found.preprocessing) == (network.config, PREPROCESSING)
    found, variables = initial_model(from_weights(init, model=model), "abc", tmp_path / "new")
    assert variables is not None
    assert tiny.leaves_by_name(variables).keys() == tiny.leaves_by_name(averages).keys()
    changed = [name for name, has_moved in moved(averages, variables).items() if has_moved]
    head = family_of_model(found).head[0]
    assert changed == [f"['params']['{head}']['{leaf}']" for leaf in ("bias", "kernel")]
    assert found.num_classes == 3
    with pytest.raises(WeightsError, match=field):
        initial_model(from_weights(init, model=other), CLASSES, tmp_path / "new")
