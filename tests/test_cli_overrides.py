"""Overrides on the command line that bring more along than they say."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from effnetv2_jax.cli.command_line import Command, parse
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config import AdamW, ConfigError, Cosine, RMSProp
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import VARIANTS, StageSpec

CONFIGS = Path(__file__).parent.parent / "configs"
FUSED = "{'operator': 'fused', 'kernel': 3, 'stride': 2, 'expand': 4, 'outputs': 20, 'repeats': 2}"


def command(*arguments: str, config: str = "imagenet_s") -> Command:
    name, _, argument = config.partition(":")
    file = f"--config={CONFIGS / name}.py" + (f":{argument}" if argument else "")
    found = parse(["effnetv2_jax", "--mode=plan", file, *arguments])
    assert isinstance(found, Command)
    return found


def network(*arguments: str, config: str = "imagenet_s") -> EfficientNetConfig:
    model = command(*arguments, config=config).experiment.model
    assert isinstance(model, EfficientNetConfig)
    return model


# Tables of stages


def test_an_override_reaches_into_the_table_of_the_name() -> None:
    found = network("--config.model.stages[3].operator=fused", "--config.model.stages.3.se_ratio=0")
    assert found.stages is not None
    rows = list(VARIANTS["efficientnetv2-s"].stages)
    rows[3] = StageSpec("fused", 3, 2, 4, 128, 6, 0.0)
    assert list(found.stages) == rows
    assert (found.resolved().width, found.resolved().depth) == (1.0, 1.0)


def test_indices_count_from_the_end_too() -> None:
    stages = network("--config.model.stages[-1].repeats=2").stages
    assert stages is not None
    assert [row.repeats for row in stages] == [2, 4, 4, 6, 9, 2]


@pytest.mark.parametrize("name", ["efficientnetv2-b3", "efficientnet-b3"])
def test_a_scaled_network_stays_as_it_is_but_for_the_override(name: str) -> None:
    argument = f"--config.model.name={name}"
    whole = network(argument).resolved()
    found = network(argument, "--config.model.stages[0].repeats=1").resolved()
    assert (found.width, found.depth) == (1.0, 1.0)
    assert whole.stages is not None
    assert found.stages is not None
    assert found.stages[-1].outputs > whole.stages[-1].outputs, "the table has scaled channels"


def test_stated_scales_apply_to_the_table_of_the_name() -> None:
    found = network("--config.model.stages[0].repeats=3", config="quickstart")
    assert (found.width, found.depth) == (0.5, 0.1)
    assert found.stages is not None
    assert found.stages[1:] == VARIANTS["efficientnetv2-b0"].stages[1:]


def test_a_whole_table_is_taken_as_it_stands() -> None:
    found = network(f"--config.model.stages=({FUSED},)", config="imagenet_b:b3").resolved()
    assert found.stages == (StageSpec("fused", 3, 2, 4, 20, 2),)
    assert (found.width, found.depth, found.stem, found.head) == (1.0, 1.0, 40, 1536)


def test_a_whole_table_is_not_scaled_by_what_the_config_file_states() -> None:
    table = f"--config.model.stages=({FUSED},)"
    found = command(table, config="quickstart")
    assert isinstance(found.experiment.model, EfficientNetConfig)
    assert (found.experiment.model.width, found.experiment.model.depth) == (None, None)
    (note,) = found.notes
    assert "taken as it stands: width and depth of the config file do not apply" in note
    scaled = network(table, "--config.model.width=0.5", config="quickstart")
    assert (scaled.width, scaled.depth) == (0.5, None)
    thin = network(table, config="quickstart:smoke")
    assert (thin.width, thin.depth) == (0.25, 0.1), "a shortened run is thin"


def test_stages_of_the_run_are_a_table_too() -> None:
    stages = "--config.stages=({'image_size': 64}, {'image_size': 96, 'dropout_rate': 0.1})"
    found = command(stages).experiment.stages
    assert [(stage.image_size, stage.dropout_rate) for stage in found] == [(64, 0.0), (96, 0.1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.stages[9].repeats=2"], r"config.model.stages has 6 entries, and so no \[9\]"),
        (["model.stages[0].repeat=2"], "config.model.stages.0. has no field 'repeat'; did you"),
        (["model.stages=abc"], "config.model.stages must be a tuple of rows"),
        (["model.stages=({'operator': 'fused'},)"], "stages.0. lacks the field 'kernel'"),
        (
            [f"model.stages=({FUSED},)", "model.stages[0].kernel=5"],
            "stages.0..kernel and config.model.stages are both stated",
        ),
        (
            ["stages[0].image_size=64", "stages=({'image_size': 64},)"],
            "stages.0..image_size and config.stages are both stated",
        ),
        (["model.stages[0].operator=dense"], "stages.0..operator must be one of"),
        (["model.stages[0].se_ratio=0.5"], "a fused block with expand=1 has nothing to squeeze"),
    ],
)
def test_what_no_table_can_be(arguments: list[str], message: str) -> None:
    with pytest.raises((CommandError, ConfigError), match=message):
        command(*(f"--config.{argument}" for argument in arguments))


# Names


def test_a_name_of_the_family_changes_what_follows_from_it() -> None:
    found = command("--config.model.name=efficientnetv2-s", config="quickstart")
    model = found.experiment.model
    assert isinstance(model, EfficientNetConfig)
    assert (model.width, model.depth, model.stages) == (None, None, None)
    assert (model.stochastic_depth_rate, model.bn_momentum) == (0.0, 0.9), "as the recipe has it"
    assert found.notes == ("config.model.name=efficientnetv2-s: width, depth follow from it",)
    kept = network(
        "--config.model.name=efficientnetv2-s", "--config.model.width=2", config="quickstart"
    )
    assert (kept.width, kept.depth) == (2.0, None)


def test_a_name_in_a_shortened_run_is_thin_as_well() -> None:
    model = network("--config.model.name=efficientnetv2-m", config="imagenet_s:smoke")
    assert (model.name, model.width, model.depth) == ("efficientnetv2-m", 0.25, 0.1)


def test_another_optimizer_has_defaults_of_its_own_and_demands_a_learning_rate() -> None:
    with pytest.raises(ConfigError, match=r"config.optimizer.learning_rate must be float, not No"):
        command("--config.optimizer.name=adamw")
    found = command(
        "--config.optimizer.name=adamw",
        "--config.optimizer.learning_rate=0.001",
        "--config.optimizer.beta1=0.8",
    )
    assert found.experiment.optimizer == AdamW(learning_rate=0.001, beta1=0.8)
    (note,) = found.notes
    assert note == (
        "config.optimizer.name=adamw: its own defaults take the place of rmsprop's fields: "
        "beta2=0.999, epsilon=1e-08, weight_decay=0.01"
    )
    with pytest.raises(
        CommandError, match=r"config.optimizer has no field 'decay'; its fields are"
    ):
        command("--config.optimizer.name=adamw", "--config.optimizer.decay=0.9")


def test_the_same_optimizer_keeps_what_the_recipe_states() -> None:
    found = command("--config.optimizer.name=rmsprop")
    assert found.experiment.optimizer == RMSProp(
        learning_rate=0.016, momentum=0.9, epsilon=1e-3, l2=1e-5
    )
    assert not found.notes


def test_another_schedule() -> None:
    found = command("--config.schedule.name=cosine", "--config.schedule.warmup_epochs=3")
    assert found.experiment.schedule == Cosine(warmup_epochs=3.0)
    with pytest.raises(ConfigError, match=r"config.schedule.decay_epochs must be float, not None"):
        command("--config.schedule.name=wsd")


def test_rates_come_as_pairs() -> None:
    found = command("--config.rates=(('classifier', 10), ('stem|blocks_0', 0))")
    assert found.experiment.rates == (("classifier", 10.0), ("stem|blocks_0", 0.0))


# The network of a run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of another network than any recipe's."""
    experiment = command(
        "--config.model.width=0.75", "--config.model.padding=symmetric", config="quickstart"
    ).experiment
    (tmp_path / "run" / "checkpoints" / "12").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(dataclasses.asdict(experiment)))
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name", [lambda run: f"workdir:{run}", str, lambda run: f"{run}/checkpoints/12"]
)
def test_weights_of_a_run_bring_its_network_along(run: Path, name: Callable[[Path], str]) -> None:
    found = command(f"--config.init={name(run)}")
    model = found.experiment.model
    assert isinstance(model, EfficientNetConfig)
    assert (model.name, model.width, model.depth) == ("efficientnetv2-b0", 0.75, 0.1)
    assert model.padding == "symmetric"
    assert (model.bn_momentum, model.dtype) == (0.99, "bfloat16"), "as the recipe has it"
    (note,) = found.notes
    assert "the network is that of the run, efficientnetv2-b0, width=0.75, depth=0.1" in note


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.width=1", "config.model.width is 1.0, but the run in config.init has 0.75"),
        ("model.padding=same", "config.model.padding is 'same', but the run in config.init has"),
        ("model.name=efficientnetv2-s", "config.model.name is 'efficientnetv2-s', but the run"),
        ("model.stages[0].kernel=5", r"model.stages\[0\].kernel is 5, but the run in .* has 3; "),
    ],
)
def test_another_network_than_the_run_has_is_refused(
    run: Path, argument: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        command(f"--config.init={run}", f"--config.{argument}")


def test_what_agrees_with_the_run_may_be_stated(run: Path) -> None:
    found = network(f"--config.init={run}", "--config.model.width=0.75")
    assert found.width == 0.75
    written = network(f"--config.init={run}", "--config.model.stages[0].kernel=3")
    assert written.stages == VARIANTS["efficientnetv2-b0"].stages


# Modules


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(CommandError, match="--import=no_such_module: No module named"):
        command("--import=no_such_module")


def test_a_config_file_is_executed_once(tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(
        "import pathlib, runpy\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "log.write_text((log.read_text() if log.exists() else '') + 'executed ')\n"
        f"get_config = runpy.run_path({str(CONFIGS / 'quickstart.py')!r})['get_config']\n"
    )
    parse(["effnetv2_jax", f"--config={file}", "--mode=plan", "--config.epochs=3"])
    assert (tmp_path / "log").read_text() == "executed "
