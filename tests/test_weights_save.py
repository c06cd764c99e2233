"""What is saved can be loaded: all is checked before anything is written, and a card goes along."""

import os
import stat
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard
from random_weights import random_variables, thin
from safetensors.numpy import load_file

from effnetv2_jax import WeightsError, load_pretrained, save_pretrained
from effnetv2_jax.weights.class_names import imagenet
from effnetv2_jax.weights.model_card import CARD, MARK
from effnetv2_jax.weights.save import _check_class_names

MODEL = thin(num_classes=3, class_names=("a", "b|c", "Größe"))
VARIABLES = random_variables(MODEL)


def changed(**leaves: Any) -> Any:
    """The variables with other leaves in the classifier; None takes one out."""
    params = VARIABLES["params"]
    classifier = {k: v for k, v in (params["classifier"] | leaves).items() if v is not None}
    return VARIABLES | {"params": params | {"classifier": classifier}}


@pytest.mark.parametrize("library", ["timm", "effnetv2_jax"])
@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (changed(bias=None), r"1 missing: params/classifier/bias"),
        (changed(scale=np.zeros(3)), r"1 unexpected: params/classifier/scale"),
        (VARIABLES | {"more": {"x": np.zeros(3)}}, r"1 unexpected: more/x"),
        (changed(bias=np.zeros(9)), r"params/classifier/bias \(\(9,\), not \(3,\)\)"),
        (changed(bias=np.full(3, np.nan)), r"params/classifier/bias \(NaN or infinite\)"),
        (changed(bias=np.array([0, 0, np.inf])), r"params/classifier/bias \(NaN or infinite\)"),
        (changed(bias=np.zeros(3, np.int32)), r"params/classifier/bias \(int32\)"),
    ],
)
def test_variables_that_are_not_the_models_leave_nothing_behind(
    variables: Any, complaint: str, library: Any, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=f"the variables do not fit the model: .*{complaint}"):
        save_pretrained(tmp_path / "saved", MODEL, variables, library=library)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("a", "b"), "there are 2 class names for 3 classes"),
        (("a", "b", "a"), "classes 0 and 2 have the same name 'a'"),
        (("a", " ", "c"), "class 1 has the name ' '"),
        (("a", "b", 7), "class 2 has the name 7"),
        (("a", "b", "\udcff"), r"class 2 has the name '\\udcff', which is not Unicode"),
    ],
)
def test_names_that_are_no_names_leave_nothing_behind(
    names: Any, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        save_pretrained(tmp_path / "saved", MODEL.clone(class_names=names), VARIABLES)
    assert not (tmp_path / "saved").exists()


def test_imagenets_two_cranes_may_be_saved() -> None:
    assert len(set(imagenet("1k"))) == 999
    _check_class_names(MODEL.clone(class_names=imagenet("1k"), num_classes=1000))


@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_files_have_the_permissions_that_the_user_asks_for(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_pretrained(tmp_path, MODEL, VARIABLES)
    finally:
        os.umask(before)
    names = {"README.md", "config.json", "model.safetensors"}
    assert {file.name for file in tmp_path.iterdir()} == names
    for name in names:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("library", ["timm", "effnetv2_jax"])
def test_the_card_says_what_is_known(library: Any, tmp_path: Path) -> None:
    origin: dict[str, Any] = {"datasets": ("owner/cats",), "metrics": {"accuracy": 0.75}}
    save_pretrained(tmp_path, MODEL, VARIABLES, library=library, license="mit", **origin)
    card = ModelCard.load(tmp_path / CARD)
    head = card.data.to_dict()
    assert head["library_name"] == library
    assert (head["license"], head["datasets"]) == ("mit", ["owner/cats"])
    assert head["metrics"] == ["accuracy"]
    assert {"effnetv2_jax", "jax", "efficientnet", library} == set(head["tags"])
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75}]
    text = card.text
    for told in (
        '| classes | 3: "a", "b\\|c", "Größe" |',
        "| network | efficientnetv2-b0, padding same, bn_epsilon 0.001 |",
        "the central 87.5% at 224 x 224 pixels, bicubic",
        "| measured | accuracy 0.75 |",
        'load_pretrained(None, "hub:OWNER/REPO")',
    ):
        assert told in text
    # Which timm cannot build by a name, since it is thinner.
    assert "timm.create_model" not in text
    assert load_pretrained(None, tmp_path)[0].class_names == MODEL.class_names


def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    save_pretrained(tmp_path, MODEL.clone(class_names=None), VARIABLES)
    card = ModelCard.load(tmp_path / CARD)
    assert not {"license", "datasets", "metrics", "model-index"} & card.data.to_dict().keys()
    assert "| measured | not stated |" in card.text
    assert "3: without names" in card.text
    with pytest.raises(WeightsError, match="metrics has accuracy=nan"):
        save_pretrained(tmp_path, MODEL, VARIABLES, metrics={"accuracy": float("nan")})


def test_a_card_that_somebody_wrote_stays(tmp_path: Path) -> None:
    save_pretrained(tmp_path, MODEL, VARIABLES)
    text = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(text.replace("classes", "kinds"))
    save_pretrained(tmp_path, MODEL, VARIABLES)
    assert (tmp_path / CARD).read_text() == text
    (tmp_path / CARD).write_text(edited := text.replace(MARK, "My own words."))
    save_pretrained(tmp_path, MODEL, VARIABLES)
    assert (tmp_path / CARD).read_text() == edited


def test_arrays_are_written_in_the_dtype_they_have(tmp_path: Path) -> None:
    for kind in (np.float16, np.float64):
        variables = jax.tree.map(lambda leaf, kind=kind: leaf.astype(kind), VARIABLES)
        save_pretrained(tmp_path, MODEL, variables, library="effnetv2_jax")
        found = load_file(tmp_path / "model.safetensors")
        assert {leaf.dtype for leaf in found.values()} == {np.dtype(kind)}


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = thin()
    written = save_pretrained("~/weights", model, random_variables(model))
    assert written == tmp_path / "weights"
    assert (written / "model.safetensors").is_file()
