"""Every config file with every argument: it is a run that can be planned, and trains."""

import dataclasses
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import config_files
import pytest

from effnetv2_jax.cli.plan import describe
from effnetv2_jax.config import experiment as experiment_module
from effnetv2_jax.config.experiment import DataConfig, Experiment, FaultsConfig
from effnetv2_jax.config.optimizers import OPTIMIZERS
from effnetv2_jax.config.schedules import SCHEDULES, Constant
from effnetv2_jax.config.smoke import smoke
from effnetv2_jax.data import DataError, open_source
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.divergence import DivergenceError
from effnetv2_jax.train.evaluate_weights import evaluate_run
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.state import build_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(("name", "argument"), config_files.ALL)
def test_every_argument_makes_a_run(name: str, argument: str) -> None:
    experiment = config_files.load(name, argument)
    shortened = config_files.load(name, f"{argument},smoke")
    assert shortened == smoke(experiment)
    data = experiment.data
    if data.num_train_examples is not None:
        plan = experiment.plan(data.num_train_examples)
        assert plan.total_steps == plan.stages[-1].end_step > 0
        assert data.num_classes is not None
        model = build_model(experiment, data.num_classes)
        assert model.preprocessing.image_size == experiment.evaluation.image_size
    # Their own files, which the test of a folder has to make.
    assert (data.num_train_examples is None) == (name in ("quickstart", "finetune", "folder"))


@pytest.mark.parametrize("name", config_files.NAMES)
def test_every_file_says_what_it_does(name: str) -> None:
    """What it costs and what to expect, as far as that is published."""
    text = (config_files.ROOT / "configs" / f"{name}.py").read_text().split('"""')[1]
    assert ":smoke`" in text
    if name not in ("quickstart", "finetune", "folder"):
        for word in ("paper", "hours", " M"):
            assert word in text, word


# One of each kind: the network is thin and the images small, but all of the program is there.
KINDS = [
    pytest.param("imagenet_b", "b0,paper", marks=pytest.mark.slow),
    pytest.param("imagenet21k", "code,sigmoid", marks=pytest.mark.slow),
    pytest.param("transfer", "b0,paper", marks=pytest.mark.slow),
    pytest.param("imagenet_resnet", "50,224,progressive", marks=pytest.mark.slow),
    pytest.param("imagenet_resnet_rs", "200", marks=pytest.mark.slow),
    pytest.param("imagenet_vit", "deit-s", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "argument"), KINDS)
def test_one_of_each_kind_trains(name: str, argument: str, tmp_path: Path) -> None:
    _check_training(config_files.load(name, f"{argument},smoke"), tmp_path / "run")


def distinct_runs() -> list[Experiment]:
    """Shortened runs among which every network is, and every recipe, numbers aside."""
    seen: set[Any] = set()
    chosen = []
    for name, argument in config_files.ALL:
        run = config_files.load(name, f"{argument},smoke")
        network = repr(type(run.model)(name=run.model.name).architecture())
        fields = dataclasses.asdict(run)
        del fields["model"]["name"]
        recipe = repr(_without_numbers(fields))
        if {network, recipe} - seen:
            chosen.append(run)
        seen |= {network, recipe}
    return chosen


def _without_numbers(value: Any) -> Any:
    """Nested values with numbers replaced by whether they are 0."""
    match value:
        case dict():
            return {name: _without_numbers(item) for name, item in value.items()}
        case tuple():
            return tuple(map(_without_numbers, value))
        case int() | float():
            return bool(value)
    return value


@pytest.mark.long
@pytest.mark.parametrize("run", distinct_runs(), ids=lambda run: run.model.name)
def test_every_network_and_every_recipe_trains(run: Experiment, tmp_path: Path) -> None:
    _check_training(run, tmp_path / "run")


def _check_training(run: Experiment, workdir: Path) -> None:
    result = train(run, workdir)
    assert result["examples"] == 64
    assert 0 < result["raw_loss"] < 10
    lines = (workdir / "metrics.jsonl").read_text()
    for index in range(len(run.stages)):
        assert f'"train/stage": {index},' in lines


PLANS = runpy.run_path(str(config_files.ROOT / "experiments" / "plans.py"))
PAGE = config_files.ROOT / "docs" / "plans.md"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS["CONFIGS"])
def test_the_page_of_plans_is_what_the_program_prints(name: str) -> None:
    for argument in PLANS["CONFIGS"][name]:
        assert PLANS["section"](name, argument) in PAGE.read_text()


def test_the_page_of_plans_has_every_config() -> None:
    for name in config_files.NAMES:
        assert f"{name}.py" in PAGE.read_text()
    assert PLANS["section"]("imagenet_b", "b0,paper") in PAGE.read_text()


CONFIG = str(Path(experiment_module.__file__).parent)


class Reads:
    """Which fields of a run's dataclasses the program has read, the checks of configs aside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        self.kinds = [Stage] + [
            kind
            for kind in vars(experiment_module).values()
            if dataclasses.is_dataclass(kind)
            and isinstance(kind, type)
            and kind.__module__ == experiment_module.__name__
        ]
        self.kinds += [*OPTIMIZERS.values(), *SCHEDULES.values()]
        self.fields = {
            f"{kind.__name__}.{field.name}"
            for kind in self.kinds
            for field in dataclasses.fields(kind)
            if field.name != "name"
        }
        for kind in self.kinds:
            monkeypatch.setattr(kind, "__getattribute__", self._reader(kind))

    def _reader(self, kind: type) -> Any:
        def read(instance: Any, name: str) -> Any:
            field = f"{kind.__name__}.{name}"
            code = sys._getframe(1).f_code
            checks = code.co_filename.startswith(CONFIG) and code.co_name != "preprocessing"
            copies = code.co_filename in (dataclasses.__file__, __file__)
            if field in self.fields and not checks and not copies:
                self.seen.add(field)
            return object.__getattribute__(instance, name)

        return read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    with monkeypatch.context() as patch:
        yield Reads(patch)


def test_every_field_is_read_by_the_program(reads: Reads, tmp_path: Path) -> None:
    run = config_files.load("imagenet_s", "paper,smoke")
    data = dataclasses.replace(run.data, eval_split="test[:32]")
    stages = (dataclasses.replace(run.stages[0], mixup_alpha=0.2),)
    run = dataclasses.replace(run, data=data, stages=stages, epochs=3 * 16 / 2016)
    train(run, tmp_path / "run")
    evaluate_run(run, tmp_path / "run")
    describe(run)
    # A run that diverges in its second step.
    wild = dataclasses.replace(
        run,
        optimizer=dataclasses.replace(run.optimizer, learning_rate=1e14),
        schedule=Constant(),
        faults=FaultsConfig(on_divergence="skip", max_divergences=1),
    )
    with pytest.raises(DivergenceError, match="max_divergences"):
        train(wild, tmp_path / "wild")
    # What only other sources, optimizers and schedules read.
    others: list[dict[str, Any]] = [
        {"source": "tfds", "name": "none"},
        {"source": "tfrecord", "path": str(tmp_path), "num_classes": 2},
        {"source": "folder", "path": str(tmp_path)},
        {"source": "csv", "path": str(tmp_path / "table.csv")},
    ]
    (tmp_path / "table.csv").write_text("path,label\nmissing.png,cat\n")
    for fields in others:
        with pytest.raises(DataError):
            open_source(DataConfig(**fields), "train")
    plan = run.plan(2016)
    for name, optimizer in OPTIMIZERS.items():
        other = dataclasses.replace(run, optimizer=optimizer(name=name, learning_rate=1.0))
        make_optimizer(other)
        learning_rate(other, plan, 1, num_examples=2016)
    needed: dict[str, Any] = {"decay_rate": 0.5, "decay_epochs": 0.01}
    for schedule in SCHEDULES.values():
        names = {field.name for field in dataclasses.fields(schedule)}
        stated = {name: value for name, value in needed.items() if name in names}
        other = dataclasses.replace(run, schedule=schedule(warmup_epochs=0.001, **stated))
        for step in (0, plan.total_steps - 1):
            learning_rate(other, plan, step, num_examples=2016)
    assert make_mesh().size
    # Experiment.plan and derive, beside the checks, read the first three; the command line reads
    # the fourth before JAX starts; and the last matters where a head is fitted.
    elsewhere = {"Experiment.epochs", "Experiment.batch_size", "Experiment.min_steps"}
    elsewhere |= {"Experiment.distributed", "ProbeConfig.l2"}
    left = reads.fields - reads.seen - elsewhere
    assert not left, sorted(left)
