"""`--mode=eval --workdir=RUN`: network, preprocessing and classes are the run's."""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mixer_family import MixerConfig
from PIL import Image
from random_weights import random_variables, write_run

from effnetv2_jax.cli.command_line import Command, parse
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config import ConfigError, DataConfig, Experiment
from effnetv2_jax.data import DataError, Record
from effnetv2_jax.data.sources.relabelled import RelabelledSource
from effnetv2_jax.main import main
from effnetv2_jax.models.registry import model_of
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train.evaluate_weights import evaluate_init, evaluate_run
from effnetv2_jax.train.evaluated_sets import match_classes
from effnetv2_jax.weights.class_names import imagenet, synsets

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = ("cat", "dog", "emu", "fox")
CONFIGS = Path(__file__).parent.parent / "configs"
MODEL = MixerConfig(depth=1)
RNG = np.random.default_rng(0)
PICTURES = {
    name: [RNG.integers(0, 256, (20, 20, 3), np.uint8) for _ in range(5)] for name in CLASSES
}


class Source:
    """Examples that are nothing but a label."""

    exif, fingerprint, name = False, "", "the source"

    def __init__(self, class_names: Sequence[str], labels: Sequence[int]) -> None:
        self.class_names, self._labels = tuple(class_names), labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), b"", (self._labels[index],))


def pictures(folder: Path, classes: Sequence[str], names: Sequence[str] = ()) -> Path:
    """A folder with the pictures of these classes, under these names."""
    for name, label in itertools.zip_longest(classes, names or classes):
        for split in ("train", "val"):
            (folder / split / label).mkdir(parents=True)
            for index, pixels in enumerate(PICTURES[name]):
                Image.fromarray(pixels).save(folder / split / label / f"{index}.png")
    return folder


def config_of(folder: Path, **fields: Any) -> Experiment:
    data = DataConfig(source="folder", path=str(folder), eval_split="val", threads=2)
    return tiny.experiment(model=MODEL, data=data, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the four classes, which come in an order that is not the alphabet's."""
    folder = pictures(tmp_path_factory.mktemp("pictures"), CLASSES)
    classes = ("fox", "cat", "emu", "dog")
    model = model_of(MODEL, num_classes=4, class_names=classes, preprocessing=squashed(40))
    experiment = config_of(folder)
    return write_run(
        tmp_path_factory.mktemp("runs") / "run",
        model,
        random_variables(model, seed=1),
        random_variables(model, seed=2),
        config=dataclasses.asdict(experiment),
    )


def evaluated(run: Path, folder: Path) -> dict[str, float]:
    (found,) = evaluate_run(config_of(folder), run, report=lambda _: None).values()
    return found


def test_the_order_of_the_classes_does_not_matter(run: Path, tmp_path: Path) -> None:
    first = evaluated(run, pictures(tmp_path / "first", CLASSES))
    assert first["examples"] == 20
    # What the whole set's accuracy is made of: known from parts of it, whatever their labels are.
    halves = [
        evaluated(run, pictures(tmp_path / f"half{index}", half))
        for index, half in enumerate([CLASSES[:2], CLASSES[2:]])
    ]
    for name in ("raw_top1", "ema_top1", "raw_loss", "ema_loss"):
        assert first[name] == pytest.approx(np.mean([half[name] for half in halves]), rel=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.permutations(CLASSES), st.data())
def test_any_permutation_of_the_classes_means_the_same(
    names: list[str], data: st.DataObject
) -> None:
    known = data.draw(st.permutations(CLASSES))
    labels = data.draw(st.lists(st.integers(0, 3)))
    source = Source(names, labels)
    places = match_classes(source, known, title="the run", report=pytest.fail)
    seen = source if places is None else RelabelledSource(source, known, places)
    for index, label in enumerate(labels):
        (found,) = seen[index].labels
        assert seen.class_names[found] == names[label]
        assert known[found] == names[label]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*CLASSES, "gnu", "hen"]), min_size=1, unique=True))
def test_any_set_of_classes_is_matched_by_name_or_refused(names: list[str]) -> None:
    said: list[str] = []
    source = Source(names, range(len(names)))
    strange = [name for name in names if name not in CLASSES]
    if strange:
        with pytest.raises(DataError) as raised:
            match_classes(source, CLASSES, title="the run", report=said.append)
        assert all(repr(name) in str(raised.value) for name in strange)
        return
    places = match_classes(source, CLASSES, title="the run", report=said.append)
    found = range(4) if places is None else places
    assert [CLASSES[place] for place in found] == names
    assert bool(said) == (len(names) < 4)


def test_names_are_of_imagenet_in_words_or_by_number() -> None:
    some = random.Random(0).sample(range(1000), 20)
    for known in (imagenet("1k"), synsets("1k"), tuple(map(str, range(1000)))):
        for names in (imagenet("1k"), synsets("1k")):
            source = Source([names[index] for index in some], range(20))
            assert match_classes(source, known, title="w", report=lambda _: None) == some
    composed, apart = "caf\u00e9", "cafe\u0301"
    source = Source(["b", apart], [0, 1])
    assert match_classes(source, [composed, "b"], title="w", report=pytest.fail) == [1, 0]


def test_another_number_of_classes_without_names_is_a_sentence() -> None:
    source = Source([str(index) for index in range(3)], [0])
    with pytest.raises(DataError, match=r"has 3 classes, and w tells 4 apart; the source has no"):
        match_classes(source, CLASSES, title="w", unnamed=True, report=pytest.fail)
    with pytest.raises(DataError, match=r"has 3 classes, and w tells 4 apart; w has no names"):
        match_classes(source, 4, title="w", report=pytest.fail)
    numbered = Source([str(index) for index in range(4)], [0])
    assert match_classes(numbered, 4, title="w", report=pytest.fail) is None
    with pytest.raises(DataError, match="has '0', '1', '2', '3', which w does not know"):
        match_classes(numbered, CLASSES, title="w", report=pytest.fail)


def test_another_normalisation_than_the_runs_is_refused(run: Path, tmp_path: Path) -> None:
    experiment = config_of(pictures(tmp_path / "all", CLASSES))
    stated: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "interpolation": "bicubic"}
    for field, value in stated.items():
        data = dataclasses.replace(experiment.data, **{field: value})
        with pytest.raises(ConfigError, match=f"config.data.{field} is .*, but the weights in"):
            evaluate_run(dataclasses.replace(experiment, data=data), run)
    said: list[str] = []
    evaluation = dataclasses.replace(experiment.evaluation, image_size=48)
    evaluate_run(dataclasses.replace(experiment, evaluation=evaluation), run, report=said.append)
    assert "evaluated at 48 px (crop); the run's own is 40 px (squash)" in said


# The command line


def command(run: Path, *arguments: str) -> Command:
    found = parse(["program", "--mode=eval", f"--workdir={run}", *arguments])
    assert isinstance(found, Command)
    return found


def test_a_run_is_evaluated_without_a_config(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run).experiment.model == MODEL
    assert main(["program", "--mode=eval", f"--workdir={run}@last"]) == 0
    printed = capsys.readouterr()
    assert "20           0" in printed.out
    assert f"{run}: the checkpoint of step 3" in printed.err
    assert main(["program", "--mode=eval", f"--workdir={run}@7"]) == 1
    assert "no checkpoint of step 7 in" in capsys.readouterr().err
    assert main(["program", "--mode=eval", f"--workdir={run}@best"]) == 1
    assert "was evaluated, and so none is the best; there are [3]" in capsys.readouterr().err


def test_of_another_config_only_the_data_is_used(run: Path, tmp_path: Path) -> None:
    folder = f"--config={CONFIGS / 'folder.py'}"
    found = command(run, folder)
    assert found.experiment.model == MODEL
    assert found.experiment.data == dataclasses.replace(
        command(run).experiment.data,
        crop="torchvision",
        crop_area=(0.35, 1.0),
        threads=None,
        eval_split="val",
    )
    (note,) = found.notes
    assert "of it only the data is used; the run has its own" in note
    assert "model.name" in note
    moved = command(run, folder, "--config.data.path=~/pictures", "--config.epochs=3")
    assert moved.experiment.data.path == "~/pictures"
    assert moved.notes[-1] == "not used in the evaluation of a run: config.epochs"
    with pytest.raises(ConfigError, match=r"config.model.depth is 2, but .* has 1; leave it out"):
        command(run, "--config.model.depth=2")
    assert command(run, "--config.model.dtype=bfloat16").experiment.model.dtype == "bfloat16"


def test_only_an_evaluation_takes_a_checkpoint(run: Path) -> None:
    with pytest.raises(CommandError, match="names a checkpoint, which --mode=eval can take"):
        parse(["program", f"--config={CONFIGS / 'quickstart.py'}", f"--workdir={run}@best"])


def test_weights_with_names_are_matched_by_name_too(run: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "all", CLASSES)
    (of_run,) = evaluate_run(config_of(folder), run, report=lambda _: None).values()
    experiment = config_of(folder, init=f"{run}@3")
    (of_init,) = evaluate_init(experiment).values()
    assert of_init["raw_top1"] == of_run["ema_top1"]
    assert of_init["raw_loss"] == pytest.approx(of_run["ema_loss"], rel=1e-6)


def test_a_mistyped_field_is_no_field_that_is_left_out(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(
        "import runpy\n"
        f"base = runpy.run_path({str(CONFIGS / 'quickstart.py')!r})\n"
        "def get_config():\n"
        "    config = base['get_config']().unlock()\n"
        "    config.data.pth = 'x'\n"
        "    return config\n"
    )
    with pytest.raises(CommandError, match=r"config.py:5: config.data has no field 'pth'; did you"):
        command(run, f"--config={file}")
