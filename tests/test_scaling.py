"""The family out of one table, against the published tables (reference: the paper's table 4)."""

import dataclasses
from unittest import mock

import pytest
import tiny

from effnetv2_jax.cli import scaling_plan
from effnetv2_jax.cli.scaling_plan import describe_scaling
from effnetv2_jax.config import ConfigError
from effnetv2_jax.models.complexity import Complexity
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.scaling import (
    SCALINGS,
    Scaling,
    round_repeats,
    scale,
    with_late_layers,
)
from effnetv2_jax.models.efficientnet.variants import BASE, VARIANTS, XL, StageSpec
from effnetv2_jax.models.vit import ViTConfig

B0 = EfficientNetConfig(name="efficientnetv2-b0")


@pytest.mark.parametrize("name", SCALINGS)
def test_published_tables_come_out_of_the_rule(name: str) -> None:
    made, published = B0.scaled(name), EfficientNetConfig(name=name)
    table = list(made.table())
    if name == "efficientnetv2-s":  # An exception: its sixth stage is narrower.
        assert table[5].outputs == 272
        table[5] = dataclasses.replace(table[5], outputs=256)
    assert tuple(table) == published.table()
    whole, written = made.resolved(), published.written_out().resolved()
    assert (whole.stem, whole.head) == (written.stem, written.head)
    assert whole.activation == written.activation


@pytest.mark.parametrize("name", SCALINGS)
def test_published_sizes_come_out_of_the_rule(name: str) -> None:
    scaling, published = SCALINGS[name], VARIANTS[name]
    assert scaling.eval_size == published.eval_size
    exceptions = {"efficientnetv2-s": 300, "efficientnetv2-b0": 192}
    assert exceptions.get(name, scaling.train_size) == published.train_size


def test_no_rule_gives_xl() -> None:
    late = with_late_layers(BASE)
    blocks = [round_repeats(row.repeats, 4.0) for row in late]
    assert blocks == [4, 8, 8, 12, 24, 32, 8]
    assert [row.repeats for row in XL] == [4, 8, 8, 16, 24, 32, 8]
    channels = [row.outputs for row in XL]
    for hundredths in range(100, 400):
        for coarse in (False, True):
            scaling = Scaling(width=hundredths / 100, coarse=coarse, image_size=512)
            assert [scaling.channels(row.outputs) for row in late] != channels
    with pytest.raises(ValueError, match=r"no scaling gives 'efficientnetv2-xl'; .*-l$"):
        B0.scaled("efficientnetv2-xl")


def test_late_layers_are_added_before_depth_multiplies() -> None:
    late = with_late_layers(BASE)
    assert [row.repeats for row in late] == [1, 2, 2, 3, 6, 8, 2]
    assert late[-1] == dataclasses.replace(BASE[-1], stride=1, outputs=320, repeats=2)
    with pytest.raises(ValueError, match="at least two stages, not 1"):
        with_late_layers(BASE[:1])


def test_any_table_is_scaled() -> None:
    searched = (StageSpec("mbconv", 5, 2, 4, 24, 2, 0.25), StageSpec("fused", 3, 2, 1, 40, 3))
    scaling = Scaling(width=2.0, depth=1.5, image_size=500, late_layers=True)
    made = scale(searched, scaling, stem=16, head=640)
    assert made.stages == (
        StageSpec("mbconv", 5, 2, 4, 48, 5, 0.25),
        StageSpec("fused", 3, 2, 1, 80, 5),
        StageSpec("fused", 3, 1, 1, 128, 3),  # 64: 5/3 of 40 in multiples of 8
    )
    assert (made.stem, made.head) == (32, 1280)
    assert (scaling.eval_size, scaling.train_size) == (480, 384)
    # Widths and depths beside the table are applied first, and all else is kept.
    config = EfficientNetConfig(
        name="efficientnetv2-b0", stages=searched, width=2.0, depth=2.0, bn_momentum=0.9
    )
    network = config.scaled("efficientnetv2-b1")
    assert [row.outputs for row in network.table()] == [48, 80]
    assert [row.repeats for row in network.table()] == [5, 7]
    assert network.bn_momentum == 0.9
    assert network.stem == network.resolved().stem == 64


def test_the_plan_shows_the_family() -> None:
    counts = Complexity(trainable=1234, total=1300, macs=5 * 10**9, activations=1)
    with mock.patch.object(scaling_plan, "complexity", return_value=counts):
        title, *rows = describe_scaling(tiny.experiment())
    assert title.startswith("scaled like")
    assert [row.split()[0] for row in rows] == list(SCALINGS)
    # Of two stages of one block with 8 channels: like M another, and the stage before has two.
    (m,) = (row for row in rows if row.startswith("efficientnetv2-m"))
    assert m.split()[1:7] == ["1.6", "2.2", "384/480", "13", "1,234", "5"]
    assert m.endswith("16x5 16x3 24x5")


def test_other_families_have_no_table_to_scale() -> None:
    with pytest.raises(ConfigError, match=r"config.model.name is 'vit"):
        list(describe_scaling(tiny.experiment(model=ViTConfig(name="vit-s16"))))
