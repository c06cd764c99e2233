"""Weights found anywhere become a model with variables, or an error that says what is wrong."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import mixer_family  # noqa: F401  # Registers itself.
import numpy as np
import pytest
import tiny
from random_weights import assert_equal, random_variables, thin
from safetensors.numpy import load_file, save_file

from effnetv2_jax import WeightsError, create_model, load_pretrained, save_pretrained
from effnetv2_jax.models.efficientnet.names import TIMM, TORCHVISION
from effnetv2_jax.models.efficientnet.published import TAGS, published
from effnetv2_jax.models.efficientnet.variants import VARIANTS
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.outputs.workdir import open_workdir
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.preprocessing import cropped, squashed
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state
from effnetv2_jax.weights.class_names import imagenet
from effnetv2_jax.weights.convert import to_library, to_own
from effnetv2_jax.weights.find import find_weights

OWN_TABLE = tuple(
    dataclasses.replace(row, operator="fused", kernel=5, se_ratio=0.0) if index == 3 else row
    for index, row in enumerate(VARIANTS["efficientnetv2-s"].stages)
)
MIXER = create_model("mixer-tiny", num_classes=7)
NAMES = tuple("abcdefg")
PREPROCESSING = dataclasses.replace(cropped(48), mean=(1.0, 2.0, 3.0))
MODEL = thin(class_names=NAMES, preprocessing=PREPROCESSING)
VARIABLES = random_variables(MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pretrained(tmp_path / "saved", MODEL, VARIABLES)


def with_arrays(folder: Path, **changes: Any) -> Path:
    path = folder / "model.safetensors"
    arrays = load_file(path) | changes
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    return folder


def test_what_was_saved_comes_back_bit_for_bit_with_all_that_belongs_to_it(folder: Path) -> None:
    model, variables = load_pretrained(None, folder)
    assert_equal(variables, VARIABLES)
    assert model == MODEL
    assert model.class_names == NAMES
    assert load_pretrained("efficientnetv2-b0", str(folder))[0] == MODEL
    assert load_pretrained(None, f"file:{folder}")[0] == MODEL


def test_saved_for_torchvision_it_keeps_the_padding(tmp_path: Path) -> None:
    model = thin("efficientnetv2-m", padding="symmetric")
    saved = random_variables(model)
    folder = save_pretrained(tmp_path, model, saved, library="torchvision")
    found, variables = load_pretrained(None, folder)
    assert_equal(variables, saved)
    assert found == model
    assert "features.0.0.weight" in load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "library", "complaint"),
    [
        (MODEL, "torchvision", "torchvision has no efficientnetv2-b0"),
        (
            MODEL.clone(padding="symmetric"),
            "timm",
            "padding is 'symmetric', but its tf_efficientnetv2_b0 has 'same'",
        ),
        (MODEL.clone(features_only=True), "timm", "load the model without features_only"),
        (
            thin("efficientnetv2-s"),
            "torchvision",
            "padding is 'same', but its efficientnet_v2_s has 'symmetric'",
        ),
        (
            thin("efficientnet-b0", padding="symmetric"),
            "torchvision",
            "bn_epsilon is 0.001, but its efficientnet_b0 has 1e-05",
        ),
        (
            MODEL.clone(stages=MODEL.stages[1:]),
            "timm",
            "timm has no such network: model.stages is of length 5, but its tf_efficientnetv2_b0",
        ),
        *(
            (thin("efficientnetv2-s", padding="symmetric", stages=OWN_TABLE), library, complaint)
            for library, complaint in (
                ("timm", r"timm has no such network: .*stages\[3\].operator is 'fused', but its"),
                ("torchvision", r"torchvision has .*stages\[3\].kernel is 5, but its .* has 3"),
                ("keras", r"Keras has .*stages\[3\].operator is 'fused', but its EfficientNetV2S"),
            )
        ),
        (thin(activation="relu6"), "timm", "activation is 'relu6', but its .* has 'silu'"),
        (
            thin(stem=16),
            "timm",
            "stem is 16, but its .* has 32; library='effnetv2_jax' saves",
        ),
        (MIXER, "timm", "mixer, such as mixer-tiny, have no names for library='timm'"),
        (MODEL, "tf1", "library must be one of .*'effnetv2_jax'.*, not 'tf1'"),
    ],
)
def test_what_a_library_cannot_load_is_not_saved(
    model: Any, library: Any, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        save_pretrained(tmp_path / "saved", model, VARIABLES, library=library)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("library", ["timm", "torchvision", "effnetv2_jax"])
def test_variables_that_lack_an_array_leave_no_folder(library: Any, tmp_path: Path) -> None:
    model = thin("efficientnetv2-s", padding="symmetric" if library == "torchvision" else "same")
    variables = random_variables(model)
    del variables["params"]["head"]
    with pytest.raises(WeightsError, match="the variables lack params/head/"):
        save_pretrained(tmp_path / "saved", model, variables, library=library)
    assert not (tmp_path / "saved").exists()


def test_the_library_saved_last_is_what_is_loaded(folder: Path) -> None:
    model = thin("efficientnetv2-s", padding="symmetric")
    saved = random_variables(model)
    save_pretrained(folder, model, saved, library="torchvision")
    found, variables = load_pretrained(None, folder)
    assert_equal(variables, saved)
    assert found == model
    assert "architecture" not in json.loads((folder / "config.json").read_text())


def test_timms_own_v1_models_keep_their_numerics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = thin("efficientnet-b0", padding="symmetric", bn_epsilon=1e-5)
    saved = random_variables(model)
    assert load_pretrained(None, save_pretrained(tmp_path, model, saved))[0] == model
    arrays = to_library(model, saved, TIMM)
    load_pretrained("efficientnet-b0", arrays, width=0.1, depth=0.1)
    assert (
        "the state dict: taken for timm's tf_efficientnet_b0; for weights of its efficientnet_b0 "
        "pass padding='symmetric', bn_epsilon=1e-05\n" in caplog.text
    )
    caplog.clear()
    load_pretrained("efficientnet-b0", arrays, width=0.1, depth=0.1, padding="symmetric")
    assert caplog.text == ""


def test_names_that_are_too_few_are_an_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"label_names": ["a", "b"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="has 2 class names for 7 classes"):
        load_pretrained(None, folder)


@pytest.mark.parametrize("library", ["timm", "torchvision", "effnetv2_jax"])
def test_bare_arrays_are_recognized(library: str, tmp_path: Path) -> None:
    known = {"timm": TIMM, "torchvision": TORCHVISION}.get(library)
    arrays = to_library(MODEL, VARIABLES, known) if known else to_own(MODEL, VARIABLES)
    save_file(dict(arrays), tmp_path / "weights.safetensors")
    padding = "symmetric" if known is TORCHVISION else "same"
    for weights in (arrays, tmp_path / "weights.safetensors"):
        model, variables = load_pretrained("efficientnetv2-b0", weights, width=0.1, depth=0.1)
        assert_equal(variables, VARIABLES)
        assert model.padding == padding
    with pytest.raises(WeightsError, match="does not say which model it is for"):
        load_pretrained(None, tmp_path / "weights.safetensors")


def test_another_number_of_classes_starts_a_new_classifier_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, variables = load_pretrained(None, folder, num_classes=3)
    assert "the classifier starts anew, with 3 classes; that of the weights has 7\n" in caplog.text
    assert model.class_names is None
    assert variables["params"]["classifier"]["kernel"].shape[-1] == 3
    kept = {**VARIABLES["params"], "classifier": variables["params"]["classifier"]}
    assert_equal(variables, VARIABLES | {"params": kept})
    images = np.zeros((2, 32, 32, 3), np.float32)
    assert model.apply(variables, images).shape == (2, 3)


def test_without_classes_the_model_gives_pooled_features(folder: Path) -> None:
    whole, variables = load_pretrained(None, folder)
    model, without = load_pretrained(None, folder, num_classes=0)
    assert "classifier" not in without["params"]
    images = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype(np.float32)
    pooled = model.apply(without, images)
    classifier = variables["params"]["classifier"]
    logits = pooled @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(logits, whole.apply(variables, images), rtol=1e-4, atol=1e-5)


def test_features_only_has_no_head(folder: Path) -> None:
    model, variables = load_pretrained(None, folder, features_only=True)
    assert not {"head", "classifier"} & variables["params"].keys()
    images = np.zeros((1, 64, 64, 3), np.float32)
    maps = model.apply(variables, images)
    whole, all_variables = load_pretrained(None, folder)
    assert_equal(maps, whole.apply(all_variables, images, method="features"))
    initial = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    assert named_leaves(initial).keys() == named_leaves(variables).keys()


def test_fields_that_contradict_the_weights_are_an_error(tmp_path: Path) -> None:
    arrays = to_library(MODEL, VARIABLES, TORCHVISION)
    with pytest.raises(WeightsError, match="padding='symmetric', but the model has 'same'"):
        load_pretrained("efficientnetv2-b0", arrays, width=0.1, depth=0.1, padding="same")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bn1.bias": None}, "1 missing: bn1.bias"),
        ({"more.weight": np.zeros(2, np.float32)}, "1 unexpected: more.weight"),
        ({"bn2.weight": np.zeros(3, np.float32)}, r"1 wrongly shaped: bn2.weight \(\(3,\), not"),
        ({"bn1.bias": np.full(8, np.nan, np.float32)}, r"bn1.bias \(NaN or infinite\)"),
        ({"bn1.bias": np.zeros(8, np.int64)}, r"bn1.bias \(int64\)"),
        ({"conv_stem.weight": None}, "none of the names that are known here"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: Any, complaint: str, folder: Path) -> None:
    with pytest.raises(WeightsError, match=complaint) as error:
        load_pretrained(None, with_arrays(folder, **change))
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(share: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="is no whole safetensors file") as error:
        load_pretrained(None, folder)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"effnetv2_jax": {}}',
        '{"pretrained_cfg": {"input_size": [3, 32, 32], "interpolation": "lanczos"}}',
        '{"pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [0, 0, 0]}}',
    ],
)
def test_a_config_that_makes_no_sense_is_named(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config.json cannot be understood"):
        load_pretrained(None, folder)


def test_weights_of_other_models_are_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="has weights of efficientnetv2-b0, not of"):
        load_pretrained("efficientnetv2-s", folder)
    config = json.loads((folder / "config.json").read_text())
    del config["effnetv2_jax"]
    for architecture in ("resnet18", "efficientnetv2_s", "tf_efficientnetv2_b9"):
        (folder / "config.json").write_text(json.dumps(config | {"architecture": architecture}))
        with pytest.raises(WeightsError, match=f"weights of {architecture}, a model that is not"):
            load_pretrained(None, folder)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ("nowhere", "neither a file or folder nor a tag"),
        ("in21k", "efficientnetv2-b0 has no weights 'in21k'; it has in1k"),
        ("hub:only-a-name", "should look like hub:OWNER/REPO"),
        ("workdir:{}", "is missing; is .* a run's --workdir"),
        ("{}", "has no weights: a run has checkpoints/"),
        ("{}/notes.txt", "none of the known endings .safetensors"),
        ("https://huggingface.co/timm/x", "weights on the Hub are written hub:OWNER/REPO"),
    ],
)
def test_where_no_weights_are(weights: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained("efficientnetv2-b0", weights.format(tmp_path))
    with pytest.raises(ValueError, match="did you mean 'efficientnetv2-s'"):
        load_pretrained("efficientnetv2s", tmp_path)


OF_RUN = dataclasses.replace(squashed(40), crop_padding=32)
"""As `tiny.experiment` states it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run with two checkpoints, and the newer one's state."""
    workdir = tmp_path_factory.mktemp("run")
    experiment = tiny.experiment()
    preprocessing = OF_RUN
    names = tuple("uvwxyz")
    open_workdir(workdir, dataclasses.asdict(experiment), names, preprocessing)
    model = build_model(experiment, 6, preprocessing)
    optimizer = make_optimizer(experiment)
    mesh = make_mesh(jax.devices()[:1])
    with Checkpoints(workdir / "checkpoints", experiment.checkpoint) as checkpoints:
        for step in (3, 6):
            variables = random_variables(model, seed=step)
            state = create_state(experiment, model, optimizer, mesh, variables)
            averages = random_variables(model, seed=step + 1)
            state = dataclasses.replace(state, ema=jax.device_put(averages))
            checkpoints.save(step, state.to_dict())
    return workdir, averages


def test_a_run_gives_its_newest_averages(run: tuple[Path, Any]) -> None:
    workdir, averages = run
    for weights in (workdir, f"workdir:{workdir}", workdir / "checkpoints" / "6"):
        model, variables = load_pretrained(None, weights)
        assert_equal(variables, averages)
        assert model.class_names == tuple("uvwxyz")
        assert model.preprocessing == OF_RUN
        assert model.config.resolved() == tiny.MODEL.resolved()
    older = load_pretrained(None, workdir / "checkpoints" / "3")[1]
    assert_equal(older, random_variables(model, seed=4))
    with pytest.raises(WeightsError, match="of efficientnetv2-b0, not of efficientnetv2-s"):
        load_pretrained("efficientnetv2-s", workdir)


def test_a_run_without_a_note_of_its_preprocessing_has_its_configs(
    run: tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "preprocessing.json").unlink()
    model, _ = load_pretrained(None, tmp_path / "run")
    assert model.preprocessing == OF_RUN
    (tmp_path / "run" / "preprocessing.json").write_text('{"size": 3}')
    with pytest.raises(WeightsError, match=r"preprocessing.json makes no sense"):
        load_pretrained(None, tmp_path / "run")


def test_preprocessing_is_told_without_reading_weights(folder: Path, run: tuple[Path, Any]) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    name = "efficientnetv2-b0"
    assert find_weights(folder, name=name).preprocessing == PREPROCESSING
    assert find_weights(f"workdir:{run[0]}").preprocessing == OF_RUN
    assert find_weights("in1k", name=name).preprocessing == cropped(224)
    assert find_weights("hub:timm/tf_efficientnetv2_b3.in1k").preprocessing == cropped(300)
    for nowhere in ("in22k", "workdir:nowhere"):
        with pytest.raises(WeightsError, match=r"nowhere|in22k"):
            find_weights(nowhere, name=name)


def test_published_weights_have_names_and_preprocessing() -> None:
    for name, tags in TAGS.items():
        for tag in tags:
            known = published(name, tag)
            assert known is not None
            found = find_weights(f"hub:{known.repository}")
            assert (found.name, found.preprocessing) == (name, known.preprocessing)
            assert found.class_names == imagenet(known.classes)
            assert published(name, tag.replace("-", "_")) == known
    assert published("efficientnetv2-s", "in21k_ft_in1k") == published(
        "efficientnetv2-s", "in21k-ft1k"
    )
    assert find_weights("in1k", name="efficientnetv2-s").preprocessing == squashed(384)
    assert find_weights("in1k", name="efficientnetv2-b1").preprocessing == cropped(240)
    assert set(TAGS) <= set(VARIANTS)
    assert len(imagenet("1k")) == 1000
    assert len(imagenet("21k")) == 21_843
    assert imagenet("1k")[0] == "tench, Tinca tinca"
    assert imagenet("1k")[-1].startswith("toilet tissue")
    assert imagenet("21k")[-1].startswith("knothole")
