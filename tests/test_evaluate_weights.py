"""ImageNet's evaluation sets, written by TensorFlow Datasets, against NumPy."""

import dataclasses
import importlib.util
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
from mixer_family import MixerConfig
from PIL import Image
from random_weights import random_variables, thin, write_run

from effnetv2_jax import WeightsError, preprocess, save_pretrained
from effnetv2_jax.config.experiment import DataConfig, EvaluationConfig, Experiment
from effnetv2_jax.data import DataError
from effnetv2_jax.data.sources.eval_sets import EVAL_SETS, get_eval_set, open_eval_set
from effnetv2_jax.main import main
from effnetv2_jax.models.registry import model_of
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train.evaluate_weights import evaluate_init, evaluate_run, results_table
from effnetv2_jax.train.loop import train
from effnetv2_jax.weights.class_names import imagenet, same_classes, synsets

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = synsets("1k")
MODEL = thin(num_classes=1000, preprocessing=squashed(32), class_names=NAMES)
SETS = tuple(EVAL_SETS)
COUNT = 20
TOPS = [word for kind in ("raw", "ema") for top in ("top-1", "top-5") for word in (kind, top)]


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((40, 36)).save(buffer, "PNG")
    return buffer.getvalue()


def labels_of(name: str, index: int) -> tuple[int, ...]:
    """Of example `index`; a ReaL picture has none to three."""
    rng = np.random.default_rng(100 + index)
    if name == "imagenet2012_real":
        return tuple(rng.permutation(1000)[: index % 4].tolist())
    classes = EVAL_SETS[name].classes or range(1000)
    return (int(rng.choice(classes)),)


def write(root: Path, name: str) -> None:
    """A set of `COUNT` pictures with the features that TFDS's own builder gives it."""
    labels = tfds.features.ClassLabel(names=list(NAMES))
    features = {"image": tfds.features.Image(encoding_format="png")}
    real = name == "imagenet2012_real"
    if real:
        features |= {"original_label": labels, "real_label": tfds.features.Sequence(labels)}
    else:
        features |= {"label": labels}
    folder = root / name / ("matched-frequency" if name == "imagenet_v2" else "") / "1.0.0"
    folder.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.utils.Version("1.0.0"),
            data_dir=str(folder),
            module_name="",
            config_name="matched-frequency" if name == "imagenet_v2" else None,
        ),
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", "real_label" if real else "label"),
    )
    split = EVAL_SETS[name].split
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=100, file_format="array_record"
    )
    writer.initialize_splits([split])
    for index in range(COUNT):
        example: dict[str, Any] = {"image": picture(index)}
        if real:
            found = list(labels_of(name, index))
            example |= {"original_label": 0, "real_label": np.array(found, np.int64)}
        else:
            example |= {"label": labels_of(name, index)[0]}
        writer.add_examples({split: [example]})
    writer.close_all()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name in SETS:
        write(root, name)
    return root


@pytest.fixture(scope="module")
def variables() -> dict:
    return random_variables(MODEL)


def experiment(sets: Path, **fields: Any) -> Experiment:
    run = tiny.experiment(
        model=tiny.NAMED,
        data=DataConfig(
            source="tfds", name="imagenet2012", path=str(sets), eval_split="validation", threads=2
        ),
        evaluation=EvaluationConfig(image_size=32, resize="squash", batch_size=8, sets=SETS),
    )
    return dataclasses.replace(run, **fields)


def test_every_set_is_evaluated_as_its_authors_do(
    sets: Path, variables: dict, tmp_path: Path
) -> None:
    weights = save_pretrained(tmp_path / "weights", MODEL, variables)
    found = evaluate_init(experiment(sets, init=str(weights)))
    images = preprocess([picture(index) for index in range(COUNT)], like=MODEL)
    logits = np.asarray(jax.jit(MODEL.apply)(variables, images))
    # The split of the config itself comes first; here it is among the sets as well.
    assert len(found) == len(SETS)
    for name, result in zip(SETS, found.values()):
        chosen = logits.copy()
        classes = EVAL_SETS[name].classes
        if classes is not None:
            left_out = np.setdiff1d(np.arange(1000), classes)
            chosen[:, left_out] = -np.inf
        best = (-chosen).argsort(1)[:, :5]
        rows = [index for index in range(COUNT) if labels_of(name, index)]
        right = np.array([np.isin(best[row], labels_of(name, row)) for row in rows])
        assert result["examples"] == len(rows), name
        assert result["unreadable"] == 0
        assert result["raw_top1"] == pytest.approx(right[:, 0].mean()), name
        assert result["raw_top5"] == pytest.approx(right.any(1).mean()), name
        log = chosen - np.log(np.exp(chosen).sum(1, keepdims=True))
        losses = [-np.mean([log[row, label] for label in labels_of(name, row)]) for row in rows]
        assert result["raw_loss"] == pytest.approx(np.mean(losses), rel=1e-4), name
    assert found["imagenet2012_real/1.0.0 validation"]["examples"] == COUNT * 3 / 4


@pytest.mark.slow
def test_a_run_is_evaluated_on_several_sets(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = experiment(sets, epochs=32 / COUNT)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, train_split="validation"))
    last = train(run, tmp_path / "run")
    results = evaluate_run(run, tmp_path / "run")
    first = results["imagenet2012/1.0.0 validation"]
    assert first["step"] == 2
    assert first["ema_loss"] == pytest.approx(last["ema_loss"], rel=1e-5)
    lines = results_table(results).splitlines()
    assert len(lines) == 1 + len(SETS)
    assert lines[0].split() == ["set", "images", "of", "unreadable", *TOPS]
    assert lines[3].startswith("imagenet_v2/matched-frequency/1.0.0 test")

    def call(*arguments: str) -> int:
        config = tmp_path / "config.py"
        config.write_text(
            "from effnetv2_jax.config import *\n"
            "from effnetv2_jax.config.reading import to_config_dict\n"
            "from effnetv2_jax.models.efficientnet import EfficientNetConfig\n"
            "from effnetv2_jax.progressive import Stage\n"
            f"def get_config(): return to_config_dict({run!r})\n"
        )
        return main(
            [
                "effnetv2_jax",
                f"--config={config}",
                "--mode=eval",
                f"--workdir={tmp_path / 'run'}",
                *arguments,
            ]
        )

    assert call("--config.evaluation.sets=('imagenet_a',)") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [
        "set",
        "imagenet2012/1.0.0",
        "imagenet_a/1.0.0",
    ]
    assert call("--config.evaluation.sets=('imagenet_b',)") == 1
    assert "evaluation.sets has 'imagenet_b'; did you mean 'imagenet_" in capsys.readouterr().err


def test_a_run_of_any_family_is_evaluated_as_it_is(tmp_path: Path) -> None:
    classes = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    config = MixerConfig(depth=1)
    model = model_of(config, num_classes=6, class_names=classes, preprocessing=squashed(40))
    raw, averages = random_variables(model, seed=1), random_variables(model, seed=2)
    run = write_run(tmp_path / "run", model, raw, averages)
    (of_run,) = evaluate_run(tiny.experiment(model=config), run).values()
    assert (of_run["step"], of_run["examples"]) == (3, 40)
    for kind, place in (
        ("ema", run),
        ("raw", write_run(tmp_path / "without", model, raw)),
        ("raw", save_pretrained(tmp_path / "folder", model, raw, library="effnetv2_jax")),
    ):
        (of_init,) = evaluate_init(tiny.experiment(model=config, init=str(place))).values()
        for name in ("top1", "top5", "loss"):
            assert of_init[f"raw_{name}"] == pytest.approx(of_run[f"{kind}_{name}"], rel=1e-6)
    assert of_run["raw_loss"] != of_run["ema_loss"]
    other = tiny.experiment(model=MixerConfig(depth=1, kernel=3))
    with pytest.raises(WeightsError, match="weights for kernel=5, but the model has 3"):
        evaluate_run(other, run)
    with pytest.raises(WeightsError, match=r"is missing; is .* a run's --workdir"):
        evaluate_run(other, tmp_path / "nowhere")


def test_classes_must_be_the_same(sets: Path, variables: dict, tmp_path: Path) -> None:
    weights = save_pretrained(tmp_path / "weights", MODEL, variables)
    embedded = experiment(sets, init=str(weights), data=tiny.experiment().data)
    with pytest.raises(DataError, match="no data set 'imagenet2012' in"):
        evaluate_init(embedded)
    other = experiment(sets, init=str(weights))
    data = dataclasses.replace(other.data, name="toy")
    from test_data_tfds import write as write_toy

    write_toy(sets, "toy")
    other = dataclasses.replace(other, data=dataclasses.replace(data, eval_split="test"))
    with pytest.raises(
        DataError, match=r"imagenet2012/1.0.0 validation has other classes than toy"
    ):
        evaluate_init(other)


def test_imagenets_classes_are_known_by_several_names() -> None:
    places = tuple(map(str, range(1000)))  # As TFRecord files without a list of names have them.
    for names in (places, imagenet("1k"), NAMES):
        assert same_classes(names, NAMES)
        assert same_classes(NAMES, names)
    assert not same_classes(places[:999], NAMES[:999])
    assert not same_classes(places[::-1], NAMES)
    digits = places[:10]
    assert same_classes(digits, digits)
    assert not same_classes(digits, ("airplane", *digits[1:]))


def test_names_go_on_with_config_and_version(sets: Path) -> None:
    assert get_eval_set("imagenet_v2/matched-frequency:1.0.0") is EVAL_SETS["imagenet_v2"]
    source = open_eval_set("imagenet_v2/matched-frequency", str(sets))
    assert len(source) == COUNT
    with pytest.raises(DataError, match="names no set"):
        open_eval_set("imagenet_v2/topimages", str(sets))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["a", "r"])
def test_subsets_are_timms(name: str) -> None:
    # Not imported: timm takes PyTorch, and its lists are files.
    timm = importlib.util.find_spec("timm")
    if timm is None or timm.origin is None:
        pytest.skip("the reference is timm's")
    listed = Path(timm.origin).parent / "data" / "_info" / f"imagenet_{name}_synsets.txt"
    chosen = EVAL_SETS[f"imagenet_{name}"].classes
    assert chosen is not None
    assert [NAMES[label] for label in chosen] == listed.read_text().split()
