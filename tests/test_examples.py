"""The examples run."""

import runpy
from pathlib import Path

import pytest
from random_weights import random_variables, thin

from effnetv2_jax import save_pretrained
from effnetv2_jax.preprocessing import squashed

EXAMPLES = Path(__file__).parent.parent / "experiments" / "examples"


@pytest.mark.usefixtures("quick_compilation")
def test_a_frozen_backbone_serves_another_module(tmp_path: Path) -> None:
    model = thin(preprocessing=squashed(32))
    weights = save_pretrained(tmp_path / "weights", model, random_variables(model))
    example = runpy.run_path(str(EXAMPLES / "frozen_backbone.py"))
    accuracy = example["main"]([f"--weights={weights}", "--examples=64", "--steps=40"])
    # Features of random weights tell the classes apart better than chance, which is 1 in 6.
    assert accuracy > 0.2
