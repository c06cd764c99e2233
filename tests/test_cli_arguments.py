"""How command lines may be written, and what is said of those that cannot be understood."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from effnetv2_jax import __version__
from effnetv2_jax.cli.command_line import Command, parse
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config import (
    AugmentConfig,
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    Experiment,
    FaultsConfig,
    LogConfig,
)
from effnetv2_jax.config.fields import fields_of
from effnetv2_jax.config.optimizers import OPTIMIZERS
from effnetv2_jax.config.schedules import SCHEDULES
from effnetv2_jax.main import main
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.outputs.workdir import WorkdirError, workdir_path
from effnetv2_jax.progressive import Stage

QUICKSTART = str(Path(__file__).parent.parent / "configs" / "quickstart.py")
KINDS = [
    Experiment,
    DataConfig,
    AugmentConfig,
    EvaluationConfig,
    CheckpointConfig,
    LogConfig,
    FaultsConfig,
    Stage,
    StageSpec,
    EfficientNetConfig,
    *OPTIMIZERS.values(),
    *SCHEDULES.values(),
]

GROUPS = ["model", "optimizer", "schedule", "data", "augment", "evaluation", "checkpoint", "log"]
GROUPS += ["faults", "probe", "early_stopping"]
"""Fields that hold others; the help text has the docstrings of their classes."""


def command(*arguments: str) -> Command:
    found = parse(["program", f"--config={QUICKSTART}", "--mode=plan", *arguments])
    assert isinstance(found, Command)
    return found


def value(path: str, *arguments: str) -> Any:
    node: Any = command(*arguments).experiment
    for name in path.split("."):
        node = node[int(name)] if name.lstrip("-").isdigit() else getattr(node, name)
    return node


def test_a_blank_will_do_for_an_equals_sign() -> None:
    words = ["--config", QUICKSTART, "--mode", "plan", "--config.epochs", "3", "--workdir", "x"]
    words += ["--config.stages[0].mixup_alpha", ".5", "--config.augment.flip", "false"]
    found = parse(["program", *words, "--noconfig.log.tensorboard"])
    assert isinstance(found, Command)
    experiment = found.experiment
    assert (found.mode, found.workdir, experiment.epochs) == ("plan", "x", 3.0)
    assert experiment.stages[0].mixup_alpha == 0.5
    assert not experiment.augment.flip
    assert not experiment.log.tensorboard
    assert value("augment.flip", "--config.augment.flip=no", "--config.augment.flip") is True


@pytest.mark.parametrize("word", ["none", "None", "NULL", "null"])
def test_none_is_understood_in_any_case(word: str) -> None:
    for path in ("model.width", "ema_decay", "data.interpolation", "data.mean", "model.stages"):
        assert value(path, f"--config.{path}={word}") is None
    assert value("data.crop", f"--config.data.crop={word}") == "none", "one of its options"
    assert value("init", f"--config.init={word}") == ""
    with pytest.raises(ConfigError, match=r"config.epochs must be float, not None"):
        command(f"--config.epochs={word}")


@pytest.mark.parametrize(
    ("argument", "path", "expected"),
    [
        ("augment.flip=TRUE", "augment.flip", True),
        ("augment.flip=off", "augment.flip", False),
        ("stages.0.image_size=64", "stages.0.image_size", 64),
        ("stages[-1].image_size=80", "stages.3.image_size", 80),
        ("stages.-1.image_size=80", "stages.3.image_size", 80),
        ("data.mean=1,2,3", "data.mean", (1.0, 2.0, 3.0)),
        ("data.mean=[1, 2, 3]", "data.mean", (1.0, 2.0, 3.0)),
        ("data.mean[1]=7", "data.mean", (128.0, 7.0, 128.0)),
        ("evaluation.sets=imagenet_v2", "evaluation.sets", ("imagenet_v2",)),
        (
            "evaluation.sets=(imagenet_v2, imagenet_a)",
            "evaluation.sets",
            ("imagenet_v2", "imagenet_a"),
        ),
        ("evaluation.sets=", "evaluation.sets", ()),
        ("augment.policy=NONE", "augment.policy", "none"),
        ("data.name=2", "data.name", "2"),
    ],
)
def test_values_are_of_their_fields_types(argument: str, path: str, expected: Any) -> None:
    found = value(path, f"--config.{argument}")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--config.lr=0.1", "did you mean config.optimizer.learning_rate?"),
        ("--config.learning_rate=0.1", "did you mean config.optimizer.learning_rate?"),
        ("--config.weight_decay=0.1", "did you mean config.optimizer.weight_decay?"),
        ("--config.num_epochs=3", "did you mean 'epochs'?"),
        ("--config.batchsize=3", "did you mean 'batch_size'?"),
        ("--config.optimizer.lr=1", "did you mean 'learning_rate'?"),
        ("--config.image_size=64", "config.evaluation.image_size or config.stages[0].image_size?"),
        ("--config.pretrained=in1k", "did you mean 'init'?"),
        ("--config.lerning_rate=1", "did you mean config.optimizer.learning_rate?"),
        ("--config.optimizer=adamw", "state --config.optimizer.name=adamw"),
        ("--config.stages[x].share=1", "fields are written as in --config.epochs=10"),
        ("--config.epochs.x=1", "config.epochs is no group of fields"),
        ("--config.stages.share=1", "config.stages has entries, such as config.stages[0]"),
        ("--config.epochs", "config.epochs lacks its value"),
        ("--config.batch_size=1.5", "config.batch_size must be a whole number, not '1.5'"),
        ("--config.augment.flip=maybe", "config.augment.flip must be true or false, not 'maybe'"),
        ("--lr=0.1", "there is no flag --lr; did you mean --config.optimizer.learning_rate?"),
        ("--epochs=3", "there is no flag --epochs; did you mean --config.epochs?"),
        ("--work_dir=x", "there is no flag --work_dir; did you mean --workdir?"),
        ("plan", "unexpected argument 'plan' (did you mean --mode=plan?)"),
    ],
)
def test_what_is_meant_is_suggested(argument: str, hint: str) -> None:
    with pytest.raises(CommandError) as raised:
        command(argument)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def floats(node: Any, path: str) -> list[str]:
    """The paths of everything in a config that is a number with a fraction, or may be one."""
    found = []
    for field in dataclasses.fields(node):
        inner, name = getattr(node, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(inner):
            found += floats(inner, f"{name}.")
        elif field.type in (float, float | None):
            found.append(name)
    return found


def test_what_is_not_finite_is_refused_in_every_field() -> None:
    experiment = command().experiment
    paths = [*floats(experiment, ""), *floats(experiment.stages[0], "stages[0].")]
    assert len(paths) > 25
    for path in paths:
        for text in ("inf", "-inf", "nan", "1e999", "1e39"):
            with pytest.raises(ConfigError, match="must be a finite number") as raised:
                command(f"--config.{path}={text}")
            assert f"config.{path} must" in str(raised.value)
    for text in ("data.mean=(inf,1,1)", "rates=(('a',nan),)", "data.crop_aspect=(.1,1e999)"):
        with pytest.raises(ConfigError, match="must be a finite number"):
            command(f"--config.{text}")


# Config files


def file(folder: Path, body: str) -> str:
    """A file that changes the quickstart's config."""
    path = folder / "mine.py"
    path.write_text(
        "import runpy\n"
        f"base = runpy.run_path({QUICKSTART!r})\n"
        "def get_config():\n"
        "    config = base['get_config']()\n"
        f"    {body}\n"
        "    return config\n"
    )
    return f"--config={path}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.modle = 3", "config has no field 'modle'; did you mean 'model'?"),
        ("config.model.nme = 'x'", "config.model has no field 'nme'; did you mean 'name'?"),
        ("print(config.model.nme)", "config.model has no field 'nme'; did you mean 'name'?"),
        ("config['data']['pth']", "config.data has no field 'pth'; did you mean 'path'?"),
        (
            "config.stages[1].image_siz = 3",
            "config.stages[1] has no field 'image_siz'; did you mean 'image_size'?",
        ),
        (
            "config.unlock(); config.epohcs = 3",
            "config has no field 'epohcs'; did you mean 'epochs'?",
        ),
        (
            "config = base['quickstart'](); config.epohcs",
            "Experiment has no field 'epohcs'; did you mean 'epochs'?",
        ),
        ("nothing", "NameError: name 'nothing' is not defined"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("config.epochs = 'many'", "TypeError: Could not override field 'epochs'"),
    ],
)
def test_a_fault_in_a_config_file_is_one_line_with_its_place(
    body: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["program", file(tmp_path, body), "--mode=plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'mine.py'}:5: {message}")


def test_a_config_file_may_return_an_experiment(tmp_path: Path) -> None:
    found = parse(["program", file(tmp_path, "config = base['quickstart']()"), "--mode=plan"])
    assert isinstance(found, Command)
    assert found.experiment == command().experiment
    with pytest.raises(CommandError, match="get_config returned NoneType; it has to return an"):
        parse(["program", file(tmp_path, "return"), "--mode=plan"])
    with pytest.raises(CommandError, match="takes no argument, and so no 'smoke'"):
        parse(["program", f"{file(tmp_path, 'pass')}:smoke", "--mode=plan"])
    broken = tmp_path / "broken.py"
    broken.write_text("\ndef get_config(:\n")
    with pytest.raises(CommandError, match=r"broken.py:2: SyntaxError: "):
        parse(["program", f"--config={broken}", "--mode=plan"])


def test_only_names_of_the_packages_configs_are_looked_for_in_it(tmp_path: Path) -> None:
    for name in ("quickstart.py", "configs/quickstart.py"):
        assert parse(["program", f"--config={name}", "--mode=plan"])
    for name in (f"{tmp_path}/quickstart.py", "~/quickstart.py", "mine/quickstart.py"):
        with pytest.raises(CommandError, match=r"did you mean configs/quickstart.py"):
            parse(["program", f"--config={name}", "--mode=plan"])


# Help


def test_help_has_every_field_with_its_meaning_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["program", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for kind in KINDS:
        for field in fields_of(kind):
            if field.name in GROUPS and kind is Experiment:
                continue
            assert field.meaning, f"{kind.__name__}.{field.name} has no docstring"
            assert field.meaning.replace("`", "") in printed
    assert "batch_size: int = 4096" in printed
    assert "optimizer.beta2: float = 0.999" in printed
    assert "schedule.decay_rate: float (to be stated)" in printed
    assert "data.crop: tensorflow | efficientnet | torchvision | none = 'tensorflow'" in printed
    assert main(["program", "--version"]) == 0
    assert capsys.readouterr().out == f"effnetv2_jax {__version__}\n"


# Places


def test_places_are_understood_as_people_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("~/x", f"file://{tmp_path}/x", f"file://localhost{tmp_path}/x", f"{tmp_path}/x"):
        assert command(f"--workdir={text}").workdir == f"{tmp_path}/x"
        assert os.fspath(workdir_path(text)) == f"{tmp_path}/x"
    assert command("--workdir=gs://bucket/x").workdir == "gs://bucket/x"
    for text in ("http://host/x", "hdfs://host/x", "s3:/bucket/x"):
        with pytest.raises(WorkdirError, match="there is no reader for"):
            command(f"--workdir={text}")


def test_a_remote_place_that_cannot_be_reached_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: object) -> str:
        raise RuntimeError("no route to host\n and more")

    monkeypatch.setattr(type(workdir_path("s3://bucket/x")), "read_text", unreachable)
    assert main(["program", f"--config={QUICKSTART}", "--config.init=s3://bucket/x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot reach s3://bucket/x/config.json: no route to host. ")
    assert "package s3fs" in line


# The end


def test_ctrl_c_before_training_is_a_sentence(tmp_path: Path) -> None:
    module = tmp_path / "slow_family.py"
    module.write_text(
        # A background job of a shell begins with Ctrl-C ignored.
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('waits', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "effnetv2_jax.main", "--import=slow_family", "--mode=plan"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "stopped by Ctrl-C\n")


def test_a_lack_of_memory_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def exhausted(text: str) -> Callable[..., None]:
        def train(*_: object, **__: object) -> None:
            raise jax.errors.JaxRuntimeError(text)

        return train

    arguments = ["program", f"--config={QUICKSTART}", f"--workdir={tmp_path / 'run'}"]
    text = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3.1GiB"
    monkeypatch.setattr("effnetv2_jax.train.loop.train", exhausted(text))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"error: the device has too little memory: {text}" in error
    assert "XLA_PYTHON_CLIENT_PREALLOCATE=false" in error
    monkeypatch.setattr("effnetv2_jax.train.loop.train", exhausted("INTERNAL: something else"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        main(arguments)
