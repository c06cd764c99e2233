"""The notebooks run from top to bottom, offline, with a thin network and few steps."""

import ast
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from random_weights import random_variables, thin

from effnetv2_jax import save_pretrained
from effnetv2_jax.preprocessing import cropped

nbformat = pytest.importorskip("nbformat", reason="the notebooks need nbformat")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES = 25
"""A longer cell is hard to read."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: Any) -> Any:
    """The cell with what a user changes."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return cell


def assigned(source: str) -> set[str]:
    """The names that a cell of assignments sets."""
    targets = [
        target
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "classify_pictures",
        "finetune_on_your_pictures",
        "progressive_learning_explained",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_as_they_should_be(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    first, *others = code_cells(notebook)
    assert 'find_spec("effnetv2_jax") is None' in first.source
    assert '%pip install -q "{source}"' in first.source
    assert not any("pip install" in cell.source for cell in others)
    assert parameters(notebook) is others[0]
    for cell in [first, *others]:
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= LINES, cell.id
        assert all(len(line) <= 100 for line in cell.source.splitlines()), cell.id


def installed(cell: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the first cell of a notebook would install where the package is missing."""
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        exec(
            cell.source.replace('%pip install -q "{source}"', "pip(source)"), {"pip": asked.append}
        )
    return asked


def test_the_first_cell_installs_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [code_cells(read(path))[0] for path in NOTEBOOKS]
    assert len({cell.source for cell in cells}) == 1
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.chdir(ROOT / "notebooks")
    assert installed(cells[0], monkeypatch) == [f"{ROOT}[lite,notebooks]"]
    assert "computes on the CPU" in capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="upload effnetv2_jax's wheel"):
        installed(cells[0], monkeypatch)
    wheel = tmp_path / "effnetv2_jax-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    assert installed(cells[0], monkeypatch) == [f"{wheel}[lite,notebooks]"]
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert installed(cells[0], monkeypatch) == [f"{wheel}[lite,notebooks,cuda]"]


def weights(folder: Path, **fields: Any) -> str:
    """A folder with a thin network of random weights."""
    model = thin(preprocessing=cropped(48), **fields)
    return str(save_pretrained(folder, model, random_variables(model)))


def execute(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> list[Any]:
    """Runs a notebook in an empty folder with other parameters, and returns its code cells."""
    nbclient = pytest.importorskip("nbclient", reason="executing notebooks needs nbclient")
    pytest.importorskip("ipykernel", reason="executing notebooks needs ipykernel")
    pytest.importorskip("matplotlib", reason="the notebooks plot with matplotlib")
    environment = {
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles faster
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    notebook = read(path)
    cell = parameters(notebook)
    assert assigned(cell.source) == values.keys()
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())

    workdir = folder / "notebook"
    workdir.mkdir()
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(workdir)}}, kernel_name="python3"
    )
    manager = client.create_kernel_manager()
    # Whatever else is called python3 on this machine: the kernel is to run in this environment.
    manager.kernel_spec.argv[0] = sys.executable
    for variable in ("MPLBACKEND", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    client.execute(env=os.environ | environment)
    return code_cells(notebook)


def outputs(cell: Any) -> dict[str, str]:
    """What a cell has written, by stream or type of its data."""
    written: dict[str, str] = {}
    for output in cell.outputs:
        assert output.output_type != "error", output.get("traceback")
        if output.output_type == "stream":
            written[output.name] = written.get(output.name, "") + output.text
        else:
            written |= output.data
    return written


def check(cells: list[Any]) -> dict[str, dict[str, str]]:
    """Every cell ran without a warning, and those that plot show a figure."""
    written = {cell.id: outputs(cell) for cell in cells}
    for cell in cells:
        assert cell.execution_count is not None, cell.id
        assert "Warning" not in written[cell.id].get("stderr", ""), written[cell.id]
        plots = "figure.tight_layout(" in cell.source
        assert ("image/png" in written[cell.id]) == plots, cell.id
    return written


@pytest.mark.slow
def test_classify_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"kind {number}, such as it is" for number in range(1000))
    cells = execute(
        NOTEBOOKS[0],
        tmp_path,
        monkeypatch,
        MODEL="efficientnetv2-b0",
        WEIGHTS=weights(tmp_path / "weights", num_classes=1000, class_names=names),
        PICTURES="",
        COMPARED=40,
    )
    written = check(cells)
    assert "1,000 classes" in written["load"]["stdout"]
    assert written["predict"]["stdout"].count("kind ") == 3
    assert "the same weights: True" in written["save"]["stdout"]


@pytest.mark.slow
def test_classify_pictures_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = execute(
        NOTEBOOKS[0],
        tmp_path,
        monkeypatch,
        MODEL="efficientnetv2-b0",
        WEIGHTS=weights(tmp_path / "weights"),
        PICTURES=str(Path(__file__).parent / "pictures"),
        COMPARED=16,
    )
    written = check(cells)
    assert written["predict"]["stdout"].count(".jpg") == 4


@pytest.mark.slow
def test_finetune_on_your_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = execute(
        NOTEBOOKS[1],
        tmp_path,
        monkeypatch,
        MODEL="efficientnetv2-b0",
        WEIGHTS=weights(tmp_path / "weights", num_classes=1000),
        MODEL_FIELDS={"width": 0.1, "depth": 0.1},
        PICTURES="",
        PER_CLASS=10,
        SIZES=(32, 48),
        EPOCHS=4,
        BATCH_SIZE=8,
        WORKDIR="a run",
    )
    written = check(cells)
    assert "48 pictures to train on, 12 held out" in written["data"]["stdout"]
    assert "of 12 pictures" in written["load"]["stdout"]
    predictions = (tmp_path / "notebook" / "predictions.csv").read_text().splitlines()
    assert len(predictions) == 1 + 60 * 2
    assert "pictures/cardboard/000.jpg" in written["command"]["stdout"]


@pytest.mark.slow
def test_progressive_learning_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = execute(
        NOTEBOOKS[2],
        tmp_path,
        monkeypatch,
        MODEL="efficientnetv2-b0",
        SIZES=(32, 48),
        STAGES=2,
        STEPS=16,
        WIDTH=0.1,
        WORKDIRS="runs",
    )
    written = check(cells)
    assert written["run"]["stdout"].count("of the held-out photographs correct") == 3
    assert written["table"]["stdout"].count("%") == 5
