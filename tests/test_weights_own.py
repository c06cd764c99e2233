"""Runs and folders of our own, of whatever family and stage table, are read as they are."""

import dataclasses
import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import mixer_family
import numpy as np
import pytest
from random_weights import assert_equal, random_variables, thin, write_run

from effnetv2_jax import (
    StageSpec,
    WeightsError,
    create_model,
    export_model,
    load_pretrained,
    save_pretrained,
)
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.protocol import Family, Model, ModelConfig
from effnetv2_jax.models.registry import register
from effnetv2_jax.preprocessing import Preprocessing, cropped, squashed
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.pretrained import fit
from effnetv2_jax.weights.run_config import network_of

TESTS = Path(__file__).parent
OWN_TABLE = (
    StageSpec("fused", 5, 2, 1, 8, 1),
    StageSpec("mbconv", 3, 1, 2, 8, 2, 0.5),
    StageSpec("fused", 3, 2, 3, 16, 1, 0.25),
)


class Counting(nn.Module):
    """A network with three collections, whose leaves are of several dtypes and shapes."""

    config: ModelConfig
    num_classes: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    min_size = 1
    dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        self.variable("calls", "count", jnp.zeros, (), jnp.int32)
        scale = self.variable("scales", "scale", jnp.ones, ())
        x = images.mean((1, 2)) * scale.value * self.param("gain", nn.initializers.ones, ())
        x = nn.Dense(self.num_classes, name="classifier")(x) if self.num_classes else x
        if self.config.name == "counting-prior":
            x += self.param("prior", nn.initializers.zeros, (self.num_classes,))
        return x


register(
    Family(
        name="counting",
        config=ModelConfig,
        variants=dict.fromkeys(["counting", "counting-prior"], squashed(32)),
        build=lambda config, **fields: Counting(config=config, **fields),
        thin=lambda config: config,
    )
)


def in_folder(path: Path, model: Model, variables: Any) -> Path:
    return save_pretrained(path, model, variables, library="effnetv2_jax")


def in_run(path: Path, model: Model, variables: Any) -> Path:
    others = jax.tree.map(lambda leaf: leaf + 1, variables)
    return write_run(path, model, others, averages=variables)


KEPT = pytest.mark.parametrize("keep", [in_folder, in_run])
Keep = Callable[[Path, Model, Any], Path]
NAMES = tuple("abcdefg")
PREPROCESSING = dataclasses.replace(cropped(48), mean=(1.0, 2.0, 3.0))


def model_of(name: str, **fields: Any) -> Any:
    common: dict[str, Any] = {
        "num_classes": 7,
        "class_names": NAMES,
        "preprocessing": PREPROCESSING,
    }
    return create_model(name, **(common | fields))


MODELS = {
    "mixer": model_of("mixer-tiny", width=8, kernel=3),
    "own table": model_of("efficientnetv2-s", stages=OWN_TABLE, stem=8, activation="relu6"),
    "thin": thin(class_names=NAMES, preprocessing=PREPROCESSING),
    "counting": model_of("counting"),
}


def variables_of(model: Model) -> Any:
    variables = random_variables(model)
    if "calls" in variables:
        variables["calls"]["count"] = np.int32(41)
    return variables


@KEPT
@pytest.mark.parametrize("kind", MODELS)
def test_any_network_comes_back_with_all_that_belongs_to_it(
    kind: str, keep: Keep, tmp_path: Path
) -> None:
    model, variables = MODELS[kind], variables_of(MODELS[kind])
    place = keep(tmp_path / "kept", model, variables)
    found, loaded = load_pretrained(None, place)
    assert_equal(loaded, variables)
    assert found == model
    assert (found.config, found.class_names) == (model.config, NAMES)
    assert load_pretrained(model.config.name, str(place))[0] == model
    network = network_of(str(place))
    assert network is not None
    assert network.resolved() == model.config.resolved()


@KEPT
def test_what_it_computes_in_is_the_callers_affair(keep: Keep, tmp_path: Path) -> None:
    model = model_of("mixer-tiny", dtype="bfloat16")
    place = keep(tmp_path / "kept", model, variables_of(model))
    assert load_pretrained(None, place)[0].dtype == jnp.float32
    assert load_pretrained(None, place, dtype=jnp.bfloat16)[0] == model


@KEPT
@pytest.mark.parametrize("kind", ["mixer", "counting", "own table"])
def test_another_number_of_classes_starts_the_head_of_any_family(
    kind: str, keep: Keep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, variables = MODELS[kind], variables_of(MODELS[kind])
    place = keep(tmp_path / "kept", model, variables)
    with caplog.at_level(logging.WARNING):
        found, loaded = load_pretrained(None, place, num_classes=3)
    assert "starts anew, with 3 classes; that of the weights has 7" in caplog.text
    head = "logits" if kind == "mixer" else "classifier"
    start = jax.jit(functools.partial(found.init, train=False))
    initial = start(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    new = loaded["params"].pop(head)
    assert_equal(new, initial["params"][head])
    assert found.class_names is None
    rest = variables["params"] | {}
    del rest[head]
    assert_equal(loaded, variables | {"params": rest})
    _, without = load_pretrained(None, place, num_classes=0)
    assert_equal(without, variables | {"params": rest})


def test_another_seed_draws_another_head_and_equal_classes_keep_it(tmp_path: Path) -> None:
    model = MODELS["mixer"]
    found = find_weights(in_folder(tmp_path / "kept", model, variables_of(model)))
    heads = [
        fit(found, model, class_names=names, seed=seed)["params"]["logits"]["kernel"]
        for names, seed in ((NAMES, 0), (NAMES[::-1], 0), (NAMES[::-1], 1))
    ]
    np.testing.assert_array_equal(heads[0], variables_of(model)["params"]["logits"]["kernel"])
    assert not np.array_equal(heads[1], heads[2])


def test_a_network_that_differs_beyond_its_head_is_refused(tmp_path: Path) -> None:
    model = model_of("counting-prior")
    place = in_folder(tmp_path / "kept", model, variables_of(model))
    complaint = (
        "with 3 classes in place of 7 the model differs beyond its head classifier, in params/p"
    )
    with pytest.raises(WeightsError, match=complaint):
        load_pretrained(None, place, num_classes=3)


def test_what_a_family_has_no_field_for_is_an_error(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "kept", MODELS["mixer"], variables_of(MODELS["mixer"]))
    with pytest.raises(TypeError, match="features_only"):
        load_pretrained(None, place, features_only=True)


def test_the_arrays_of_a_folder_say_where_they_belong(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    place = in_folder(tmp_path / "kept", MODELS["counting"], variables_of(MODELS["counting"]))
    arrays = load_file(place / "model.safetensors")
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "calls/count": ("int32", ()),
        "params/classifier/bias": ("float32", (7,)),
        "params/classifier/kernel": ("float32", (3, 7)),
        "params/gain": ("float32", ()),
        "scales/scale": ("float32", ()),
    }
    own = json.loads((place / "config.json").read_text())["effnetv2_jax"]
    assert (own["library"], own["family"]) == ("effnetv2_jax", "counting")
    assert own["model"] == {"name": "counting", "dtype": "float32", "input_channels": 3}
    arrays["calls/count"] = np.array(1, np.float32)
    del arrays["params/gain"]
    save_file(arrays, place / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing: params/gain; 1 unfit: calls/count \(float32"):
        load_pretrained(None, place)


def test_a_fault_in_the_config_of_a_folder_is_named(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "kept", MODELS["own table"], variables_of(MODELS["own table"]))
    content = json.loads((place / "config.json").read_text())
    fields = content["effnetv2_jax"]["model"]
    for change, complaint in (
        (
            {"stages": [fields["stages"][0] | {"operator": "dense"}]},
            r"stages\[0\].operator must be",
        ),
        ({"widht": 2.0}, r"config.model has no field 'widht'; did you mean 'width'"),
        ({"depth": -1.0}, r"config.model.depth must be above 0"),
    ):
        content["effnetv2_jax"]["model"] = fields | change
        (place / "config.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=complaint):
            load_pretrained(None, place)


def test_another_network_is_refused_by_the_field(tmp_path: Path) -> None:
    model = MODELS["own table"]
    found = find_weights(in_run(tmp_path / "run", model, variables_of(model)))
    changed = (dataclasses.replace(OWN_TABLE[0], kernel=3), *OWN_TABLE[1:])
    for fields, complaint in (
        (
            {"stages": changed},
            r"stages\[0\].kernel=5, but the model has 3; set .*config.model.stag",
        ),
        ({"stages": OWN_TABLE[:2]}, "stages=of length 3, but the model has of length 2"),
        ({"activation": "silu"}, "activation='relu6', but the model has 'silu'"),
        ({"bn_epsilon": 1e-5}, "config.model.bn_epsilon"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            found.check(dataclasses.replace(model.config, **fields))
    found.check(dataclasses.replace(model.config, bn_momentum=0.5, remat="blocks"))
    # Its name decides nothing where all that follows from it is stated.
    found.check(dataclasses.replace(model.config, name="efficientnet-b0"))
    with pytest.raises(WeightsError, match="name='efficientnetv2-s', but the model has 'mixer"):
        found.check(mixer_family.MixerConfig())
    with pytest.raises(WeightsError, match="of efficientnetv2-s, not of efficientnetv2-b0"):
        load_pretrained("efficientnetv2-b0", tmp_path / "run")


def test_a_table_that_is_written_out_is_the_same_network(tmp_path: Path) -> None:
    written = EfficientNetConfig(name="efficientnetv2-b2").written_out()
    config = {"model": {"name": "efficientnetv2-b2"}, "ema_decay": None}
    model = create_model("efficientnetv2-b0", num_classes=7, width=0.1, depth=0.1)
    run = write_run(tmp_path / "run", model, variables_of(model), config=config)
    find_weights(run).check(written)


OLD_MODEL = {
    "bn_epsilon": 0.001,
    "bn_frozen": False,
    "bn_group": 8,
    "bn_momentum": 0.9,
    "depth": 0.1,
    "dtype": "bfloat16",
    "name": "efficientnetv2-b0",
    "padding": "same",
    "remat": "none",
    "stochastic_depth_rate": 0.2,
    "width": 0.1,
}
"""As an earlier version wrote it into a run's config."""


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    model = thin(class_names=NAMES, preprocessing=PREPROCESSING)
    raw, averages = random_variables(model, seed=1), random_variables(model, seed=2)
    old = {
        "model": OLD_MODEL,
        "ema_decay": 0.99,
        "trainable": ".*",
        "optimizer": {"name": "rmsprop", "learning_rate": 0.1, "classifier_learning_rate": None},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0, "decay_rate": 0.97},
    }
    run = write_run(tmp_path / "run", model, raw, averages, config=old)
    found, variables = load_pretrained(None, run)
    assert_equal(variables, averages)
    assert found == model.clone(bn_momentum=0.9, bn_group=8)
    without = write_run(tmp_path / "raw", model, raw, config=old | {"ema_decay": None})
    assert_equal(load_pretrained(None, without)[1], raw)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_folder_of_an_earlier_version_is_read(library: Any, tmp_path: Path) -> None:
    padding = "symmetric" if library == "torchvision" else "same"
    model = thin("efficientnetv2-s", padding=padding, preprocessing=PREPROCESSING)
    variables = random_variables(model)
    folder = save_pretrained(tmp_path, model, variables, library=library)
    content = json.loads((folder / "config.json").read_text())
    fields = {"width": 0.1, "depth": 0.1, "padding": padding, "bn_epsilon": 0.001}
    content["effnetv2_jax"] = {
        "name": "efficientnetv2-s",
        "fields": fields,
        "preprocessing": dataclasses.asdict(PREPROCESSING),
        "library": library,
    }
    (folder / "config.json").write_text(json.dumps(content))
    found, loaded = load_pretrained(None, folder)
    assert found == model
    assert_equal(loaded, variables)


def test_a_network_of_any_family_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")
    model, variables = MODELS["mixer"], variables_of(MODELS["mixer"])
    exported = export_model(model, variables, platforms=["cpu"])
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    mean, std = np.array([PREPROCESSING.mean, PREPROCESSING.std], np.float32)
    expected = jax.jit(model.apply)(variables, (images - mean) / std)
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_allclose(again.call(images), expected, rtol=1e-4, atol=1e-5)


def python(program: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh process that finds the modules of the tests."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


WITHOUT_EFFICIENTNET = """
import sys
sys.modules["effnetv2_jax.models.efficientnet"] = None
from effnetv2_jax import list_models, load_pretrained
from effnetv2_jax.predict import main
options = ["--import=mixer_family", "--format=json", "--top=1", sys.argv[3]]
for place in sys.argv[1:3]:
    assert main([f"--weights={place}", *options]) == 0
    model, variables = load_pretrained(None, place, num_classes=3)
    assert variables["params"]["logits"]["bias"].shape == (3,)
assert list_models("mixer*") == ["mixer-tiny", "mixer-small"]
assert not list_models("efficientnet*")
"""


def test_other_families_do_without_efficientnet(tmp_path: Path) -> None:
    model, variables = MODELS["mixer"], variables_of(MODELS["mixer"])
    places = [
        in_folder(tmp_path / "folder", model, variables),
        in_run(tmp_path / "run", model, variables),
    ]
    done = python(WITHOUT_EFFICIENTNET, *places, TESTS / "pictures" / "glass.jpg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"predictions"') == 2


UNKNOWN_FAMILY = """
import sys
from effnetv2_jax import WeightsError, load_pretrained
from effnetv2_jax.weights.run_config import network_of
for place in sys.argv[1:]:
    for ask in (lambda place: load_pretrained(None, place), network_of):
        try:
            ask(place)
        except WeightsError as error:
            print(error)
assert not {"mixer_family", "antigravity"} & set(sys.modules)
"""


def test_a_family_that_is_not_here_is_told_and_nothing_is_imported(tmp_path: Path) -> None:
    model, variables = MODELS["mixer"], variables_of(MODELS["mixer"])
    folder, run = (
        in_folder(tmp_path / "folder", model, variables),
        in_run(tmp_path / "run", model, variables),
    )
    bare = in_run(tmp_path / "bare", model, variables)
    start = {"event": "start", "model": {"family": "mixer", "module": "antigravity"}}
    (run / "events.jsonl").write_text(json.dumps(start) + '\n{"event": "torn')
    complaints = {
        folder: "'mixer-tiny', a model of the family 'mixer' that is not here; import the module",
        run: "of the family 'mixer' from the module antigravity that is not here; import the",
        bare: "has weights of 'mixer-tiny', a model that is not here; import the module that",
    }
    done = python(UNKNOWN_FAMILY, *complaints)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[::2] == lines[1::2]
    for line, (place, complaint) in zip(lines[::2], complaints.items(), strict=True):
        assert line.startswith(str(place))
        assert complaint in line
