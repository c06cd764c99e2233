"""The command line: help, plans, and a clear answer to bad input."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from effnetv2_jax.main import main
from effnetv2_jax.preprocessing import squashed

ROOT = Path(__file__).parent.parent
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
SMOKE = f"{QUICKSTART}:smoke"


def call(*arguments: str) -> int:
    return main(["effnetv2_jax", *arguments])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config.epoch=3"], "no field 'epoch'; did you mean 'epochs'"),
        (["--config.model.widht=3"], "config.model has no field 'widht'; did you mean 'width'"),
        (["--config.stages[0].image_siz=3"], "did you mean 'image_size'"),
        (["--config.stages[4].image_size=64"], "config.stages has 4 entries, and so no [4]"),
        (["--config.epochs=many"], "config.epochs must be a number, not 'many'"),
        (["--config.epochs=None"], "config.epochs must be float, not None"),
        (["--config.model.dtype=float8"], "config.model.dtype must be one of"),
        (["--config.stages[1].image_size=31"], "config.stages[1].image_size is 31"),
        (["--config.stages[1].batch_size=9", "--config.augment.mix_group=2"], "mix_group is 2"),
        (["--config.epochs=0.01"], "stages[0]: its share of the run's 20 examples is less than"),
        (["--config.model.name=efficientnetv2-z"], "did you mean 'efficientnetv2-"),
        (["--config.data.num_classes=7"], "has 6 classes, but data.num_classes is 7"),
        (["--config.data.source=tfds"], "config.data.name must name a TFDS set"),
        (["--mode=fly"], "--mode=fly"),
        (["--unknown=1"], "unknown"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(QUICKSTART, "--mode=plan", *arguments) != 0
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert complaint in printed.err
    assert printed.out == ""


def test_a_batch_that_does_not_divide_over_the_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The tests run on eight virtual devices.
    assert call(SMOKE, f"--workdir={tmp_path / 'run'}", "--config.batch_size=12") == 2
    error = "config.batch_size is 12, which does not divide over 8 devices; 8 would"
    assert error in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_such_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = f"--config={ROOT}/configs/folder.py"
    assert call(folder, "--mode=plan", f"--config.data.path={tmp_path / 'none'}") == 1
    assert f"there is no folder '{tmp_path / 'none'}'" in capsys.readouterr().err
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()
    assert call(folder, "--mode=plan", f"--config.data.path={tmp_path}") == 1
    assert str(tmp_path) in capsys.readouterr().err
    imagenet = f"--config={ROOT}/configs/imagenet_s.py"
    assert call(imagenet, f"--workdir={tmp_path}", f"--config.data.path={tmp_path}") == 1
    assert "no data set 'imagenet2012'" in capsys.readouterr().err


def test_training_needs_a_workdir_and_evaluation_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(SMOKE) == 2
    assert "needs --workdir" in capsys.readouterr().err
    assert call(SMOKE, "--mode=eval", f"--workdir={tmp_path}") == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_faults_in_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "from effnetv2_jax.models.efficientnet import EfficientNetConfig\n"
        "def get_config():\n"
        "    return EfficientNetConfig(nmae='efficientnetv2-s')\n"
    )
    assert call(f"--config={config}", "--mode=plan") == 2
    assert "EfficientNetConfig has no field 'nmae'; did you mean 'name'" in capsys.readouterr().err
    config.write_text(
        "from effnetv2_jax.config import AdamW\n"
        "def get_config():\n"
        "    return AdamW(learning_rte=0.1)\n"
    )
    assert call(f"--config={config}", "--mode=plan") == 2
    assert "AdamW has no field 'learning_rte'; did you mean 'learning_rate'" in (
        capsys.readouterr().err
    )
    config.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    return ml_collections.ConfigDict({'stages': (), 'epohcs': 3})\n"
    )
    assert call(f"--config={config}", "--mode=plan") == 2
    assert "config has no field 'epohcs'; did you mean 'epochs'" in capsys.readouterr().err
    assert call(f"--config={tmp_path / 'missing.py'}", "--mode=plan") == 2
    assert "the package has finetune.py, folder.py, imagenet21k.py" in capsys.readouterr().err
    assert call(f"{QUICKSTART}:slow", "--mode=plan") == 2
    assert "unknown argument 'slow'; known: smoke" in capsys.readouterr().err


def test_plan_shows_the_stages_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    config = f"--config={ROOT}/configs/imagenet_s.py"
    assert call(config, "--mode=plan", "--config.stages[0].image_size=96") == 0
    table = capsys.readouterr().out
    assert "21,458,488 trainable parameters, 21,612,360 with BatchNorm statistics" in table
    assert "107,336 steps" in table
    first, *_, last = [line for line in table.splitlines() if "4,096" in line]
    assert first.split()[:6] == ["1/4", "0", "-", "26,833", "96", "4,096"]
    assert last.split()[:6] == ["4/4", "80,502", "-", "107,335", "300", "4,096"]
    assert "8.37 GMACs" in table
    assert call(QUICKSTART, "--mode=plan", "--config.epochs=1", "--config.batch_size=16") == 0
    assert "126 steps" in capsys.readouterr().out


def test_overrides_reach_optional_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(QUICKSTART, "--mode=plan", "--config.model.width=None") == 0
    assert call(QUICKSTART, "--mode=plan", "--config.stages[3].batch_size=64") == 0
    assert " 64  " in capsys.readouterr().out.splitlines()[-3]


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("--config", "--workdir", "--mode"))


def test_a_config_is_found_without_a_clone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "effnetv2_jax.main", "--config=configs/quickstart.py"]
    done = subprocess.run(
        [*command, "--mode=plan"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "efficientnetv2-b0, 6 classes" in done.stdout


def test_a_mistyped_flag_is_answered_with_an_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "effnetv2_jax.main", QUICKSTART, "--mode=paln"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_workdir_of_another_config_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from effnetv2_jax.cli.command_line import parse
    from effnetv2_jax.outputs.workdir import open_workdir

    command = parse(["effnetv2_jax", SMOKE, f"--workdir={tmp_path}"])
    assert not isinstance(command, str)
    names = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
    open_workdir(tmp_path, dataclasses.asdict(command.experiment), names, squashed(32))
    assert call(SMOKE, f"--workdir={tmp_path}", "--config.optimizer.beta1=0.5") == 1
    error = capsys.readouterr().err
    assert "optimizer.beta1: 0.9 -> 0.5" in error
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["beta1"] == 0.9
