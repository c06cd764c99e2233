"""A run's weights for other programs, from the command line."""

from pathlib import Path

import numpy as np
import pytest
from jax import export
from random_weights import random_variables, thin, write_run

from effnetv2_jax import load_pretrained
from effnetv2_jax.export import default_output, main
from effnetv2_jax.preprocessing import cropped

MODEL = thin(num_classes=3, preprocessing=cropped(40), class_names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("weights", "form", "expected"),
    [
        ("runs/mine@best", "onnx", "mine.onnx"),
        ("workdir:runs/mine/", "stablehlo", "mine.stablehlo"),
        ("in1k", "timm", "in1k-timm"),
        ("hub:timm/tf_efficientnetv2_s.in1k@abc", "keras", "tf_efficientnetv2_s.in1k-keras"),
        ("a b/model.safetensors", "torchvision", "model-torchvision"),
    ],
)
def test_the_name_of_what_is_written(weights: str, form: str, expected: str) -> None:
    assert default_output(weights, form) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint", "status"),
    [
        (["nowhere", "--format=onxx"], "--format must be one of onnx, stablehlo, timm", 2),
        (["nowhere", "--format=timm", "--image_size=64"], "--image_size belongs to", 2),
        (["nowhere", "--format=timm"], "there are no weights 'nowhere'", 1),
        (["nowhere", "--format=timm", "--model=b0"], "--model: unknown model 'b0'", 2),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], complaint: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    assert complaint in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    write_run(workdir, MODEL, random_variables(MODEL))
    return str(workdir)


def test_a_folder_for_timm(
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([run, "--format=timm", "--license=mit"]) == 0
    assert capsys.readouterr().out == "mine-timm\n"
    assert "license: mit" in (tmp_path / "mine-timm" / "README.md").read_text()
    model, variables = load_pretrained(None, tmp_path / "mine-timm")
    assert model.class_names == ("a", "b", "c")
    kernel = variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(
        kernel, load_pretrained(None, run)[1]["params"]["classifier"]["kernel"]
    )
    # What a library cannot express is refused.
    assert main([run, "--format=torchvision"]) == 1
    assert "torchvision" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_of_stablehlo(run: str, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")
    file = tmp_path / "it.bin"
    assert main([run, "--format=stablehlo", f"--output={file}", "--image_size=48"]) == 0
    loaded = export.deserialize(bytearray(file.read_bytes()))
    assert loaded.call(np.zeros((2, 48, 48, 3), np.uint8)).shape == (2, 3)
