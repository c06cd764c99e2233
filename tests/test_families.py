"""The registry of families: our own, registered ones, and those of installed packages."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from mixer_family import FAMILY, MixerConfig

from effnetv2_jax import create_model, list_models
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.protocol import Family
from effnetv2_jax.models.registry import UnknownModelError, families, family_of, register
from effnetv2_jax.preprocessing import squashed

TESTS = Path(__file__).parent


def family(name: str, model: str) -> Family:
    return Family(
        name=name,
        config=MixerConfig,
        variants={model: squashed(64)},
        build=FAMILY.build,
        thin=FAMILY.thin,
    )


def test_names_lead_to_families() -> None:
    assert family_of("mixer-tiny") is FAMILY
    assert family_of("efficientnetv2-s").config is EfficientNetConfig
    assert family_of("efficientnet-b0") is family_of("efficientnetv2-s")


def test_models_are_listed_by_a_pattern() -> None:
    v2 = [f"efficientnetv2-{name}" for name in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")]
    assert list_models("efficientnetv2*") == v2
    assert list_models("*-tiny") == ["mixer-tiny"]
    assert list_models("nothing*") == []
    assert {*v2, "mixer-tiny"} < set(list_models())


HERE = [
    next(iter(each.variants))
    for each in families()
    # Other tests register families of their own, which may come before or after.
    if each.build.__module__.startswith(("effnetv2_jax.", "mixer_family"))
]


@pytest.mark.parametrize("name", HERE)
def test_images_of_integers_are_refused_by_every_family(name: str) -> None:
    """Pixels that were never normalised would give nonsense."""
    family = family_of(name)
    model = family.build(
        family.thin(family.config(name=name)), num_classes=3, preprocessing=squashed(64)
    )
    size = model.min_size
    for kind in (np.uint8, np.int32):
        pixels = jax.ShapeDtypeStruct((1, size, size, 3), kind)
        with pytest.raises(TypeError, match=r"pass preprocess\(images, like=model\)"):
            jax.eval_shape(
                lambda images: model.init(jax.random.key(0), images, train=False), pixels
            )
    with pytest.raises(ValueError, match=f"H and W at least {size}"):
        model.init(jax.random.key(0), np.zeros((1, size - 1, size, 3), np.float32), train=False)


def test_an_unknown_name_has_the_closest_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"did you mean 'mixer-tiny'\?.*--import=MODULE"):
        create_model("mixer-tny")


def test_to_register_a_family_again_changes_nothing() -> None:
    before = list(families())
    assert register(FAMILY) is FAMILY
    assert list(families()) == before


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="there is a family 'mixer' already"):
        register(family("mixer", "another"))
    with pytest.raises(ValueError, match=r"'efficientnet' has models of the names .*v2-s"):
        register(family("another", "efficientnetv2-s"))


@pytest.mark.parametrize("registers", [False, True])
def test_an_installed_package_has_an_entry_point(registers: bool, tmp_path: Path) -> None:
    """Whether or not its module registers the family itself."""
    text = (TESTS / "mixer_family.py").read_text()
    if not registers:
        text = text.replace("FAMILY = register(", "FAMILY = (")
    (tmp_path / "installed_mixer.py").write_text(text)
    info = tmp_path / "installed_mixer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-mixer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[effnetv2_jax.families]\nmixer = installed_mixer:FAMILY\nbroken = no_such_module:FAMILY\n"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from effnetv2_jax import list_models\n"
        "print(list_models('mixer*'), len(list_models('efficientnetv2*')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TESTS.parent
    )
    assert done.stdout.strip() == "['mixer-tiny', 'mixer-small'] 8"
    assert "the family broken cannot be used: ModuleNotFoundError" in done.stderr
