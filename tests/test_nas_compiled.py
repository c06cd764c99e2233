"""The table of blocks: which blocks a network has, and that each is compiled once."""

import collections
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import searches
import tiny
from etils import epath
from searches import Inline

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.vit import ViTConfig
from effnetv2_jax.nas import choice, paper_space
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.cost import compiled as module
from effnetv2_jax.nas.cost.compiled import Compiled, calibrating
from effnetv2_jax.nas.cost.covering import covering
from effnetv2_jax.nas.cost.kept import Kept
from effnetv2_jax.nas.cost.parts import Ends, Part, ends_of, parts_of, table_of
from effnetv2_jax.nas.cost.parts_table import read_parts_table, write_parts_table
from effnetv2_jax.nas.cost.traffic import Traffic, one_chip
from effnetv2_jax.nas.run import run_search
from effnetv2_jax.nas.space import Picks, Space, sample, settings
from effnetv2_jax.nas.trial import step_time_of
from effnetv2_jax.parallel.topology import TopologyError

B0 = EfficientNetConfig(name="efficientnetv2-b0")
AROUND = 150e6
"""Bytes of what stands around the blocks, in the world of these tests."""


def with_rows(**fields: Any) -> EfficientNetConfig:
    """B0 with other values in all of its rows."""
    rows = tuple(dataclasses.replace(row, **fields) for row in B0.written_out().stages or ())
    return dataclasses.replace(B0, stages=rows)


def test_a_network_is_its_first_and_its_repeated_blocks() -> None:
    found = parts_of(B0, 130)
    assert sum(found.values()) == 21
    # 65 pixels after the stem, then 33, 17, 9, 9 and 5.
    row = StageSpec("mbconv", 3, 2, 6, 192, 1, 0.25)
    assert found[Part(row, inputs=112, image_size=9)] == 1
    assert found[Part(dataclasses.replace(row, stride=1), inputs=192, image_size=5)] == 7
    assert found[Part(StageSpec("fused", 3, 1, 1, 16, 1), inputs=32, image_size=65)] == 1
    assert len(found) == 11
    assert ends_of(B0) == Ends(stem=32, outputs=192, head=1280)


def test_blocks_are_those_of_the_table_as_it_is_built() -> None:
    b2 = EfficientNetConfig(name="efficientnetv2-b2")
    assert parts_of(b2, 128) == parts_of(b2.written_out(), 128)
    assert {part.block.outputs for part in parts_of(b2, 128)} == {16, 32, 56, 104, 120, 208}
    with pytest.raises(ConfigError, match=r"vit-.* is no EfficientNet"):
        parts_of(ViTConfig(name="vit-s16"), 128)


def bytes_of(part: Part) -> float:
    row = part.block
    return 1e3 * part.image_size * row.outputs * row.kernel * (row.expand + row.se_ratio)


class World:
    """Counts what is compiled, where a network moves what its blocks do and `AROUND`."""

    def __init__(self) -> None:
        self.compiled: collections.Counter[object] = collections.Counter()
        self.fails_after = 10_000

    def part(self, part: Part, model: object, **_: object) -> Traffic:
        return self._count(part, bytes_of(part))

    def network(self, model: EfficientNetConfig, *, image_size: int, **_: object) -> Traffic:
        blocks = parts_of(model, image_size)
        whole = sum(count * bytes_of(part) for part, count in blocks.items())
        return self._count(model.stages, whole + AROUND)

    def _count(self, what: object, moved: float) -> Traffic:
        if self.compiled.total() >= self.fails_after:
            raise InterruptedError
        self.compiled[what] += 1
        return Traffic(bytes=moved, flops=0.0, seconds=1.0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with mock.patch.multiple(
        module, part_traffic=world.part, network_traffic=world.network, one_chip=lambda name: name
    ):
        yield world


def compiler(folder: Path, **options: Any) -> Compiled:
    return Compiled(B0, directory=folder, **{"image_size": 128, "threads": 2} | options)


def test_a_network_costs_what_its_blocks_do_and_a_constant(world: World, tmp_path: Path) -> None:
    other = with_rows(operator="mbconv", kernel=5, se_ratio=0.25)
    one = compiler(tmp_path)
    table = one.table([other])
    assert table(B0) == 1
    assert table.constant == pytest.approx(AROUND)
    assert table.bytes(other) == pytest.approx(one.whole(other))
    assert table(other) == pytest.approx(one.whole(other) / one.whole(B0))
    assert table(other) > 1
    assert table.source == (
        "traffic of fusions, compiled for one chip of v5e: 128 images of 128 pixels in bfloat16"
    )
    with pytest.raises(ConfigError, match="the table of traffic has no Part"):
        table(with_rows(kernel=7))
    path = epath.Path(tmp_path) / "table.json"
    write_parts_table(path, table)
    assert read_parts_table(path) == table
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"table.json cannot be read .*delete it"):
        read_parts_table(path)


def test_everything_is_compiled_once_and_an_interrupted_table_goes_on(
    world: World, tmp_path: Path
) -> None:
    networks = [with_rows(kernel=5), with_rows(operator="mbconv", se_ratio=0.25), B0]
    world.fails_after = 9
    with pytest.raises(InterruptedError):
        list(compiler(tmp_path).prepare(networks))
    world.fails_after = 10_000
    lines = list(compiler(tmp_path).prepare(networks))
    total = world.compiled.total()
    assert set(world.compiled.values()) == {1}
    assert lines[-1].startswith(f"{len(lines)}/{len(lines)}  ")
    assert len(lines) == total - 9
    assert list(compiler(tmp_path).prepare(networks)) == []
    compiler(tmp_path).table(networks)
    assert world.compiled.total() == total


def test_another_batch_size_or_chip_is_another_table(world: World, tmp_path: Path) -> None:
    compiler(tmp_path).table([])
    first = world.compiled.total()
    for options in ({"batch_size": 64}, {"image_size": 96}, {"topology": "v6e:2x2"}):
        compiler(tmp_path, **options).table([])
        assert world.compiled.total() >= first + 4
        first = world.compiled.total()
    compiler(tmp_path, topology="v5e:4x4").table([])  # of which it is one chip too
    assert world.compiled.total() == first


def test_networks_with_other_ends_are_refused(world: World, tmp_path: Path) -> None:
    wider = dataclasses.replace(B0, width=2.0)
    with pytest.raises(ConfigError, match=r"64, 384 and 2560 channels.* 32, 192 and 1280"):
        compiler(tmp_path).table([wider])
    with pytest.raises(ConfigError, match="leave their widths out of the search"):
        list(compiler(tmp_path).prepare([B0, wider]))
    with pytest.raises(ConfigError, match="channels"):
        compiler(tmp_path, calibration=[wider])
    assert not world.compiled
    with pytest.raises(ConfigError, match="channels"):
        compiler(tmp_path).table([])(wider)


def test_traffic_is_of_a_tpu() -> None:
    with pytest.raises(TopologyError, match=r"search\.cost=measured"):
        one_chip("local")


def test_the_calibrating_networks_have_the_ends_of_the_reference() -> None:
    base = table_of(B0)
    for network in calibrating(base):
        assert ends_of(network) == ends_of(base)
        assert list(network.faults()) == []


def test_what_is_kept_is_whole_or_not_there(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "folder")
    assert kept.read("a") is None
    kept.write("a", {"bytes": 1.0})
    assert kept.read("a") == {"bytes": 1.0}
    (tmp_path / "folder" / "b.json").write_text('{"bytes": 1')
    assert kept.read("b") is None
    assert [path.name for path in (tmp_path / "folder").glob("*.tmp")] == []


def test_few_candidates_have_every_block_of_a_space() -> None:
    space = (*paper_space(B0, layers=(1.0, 2.0)), choice("optimizer.learning_rate", 0.1, 0.2))
    picks = list(covering(space))
    assert len(picks) == 2 * 2 * 3 * 2
    few, many = (
        {part for each in found for part in parts_of(network_in(space, each), 64)}
        for found in (picks, [sample(space, np.random.default_rng(seed)) for seed in range(60)])
    )
    assert many <= few
    # First and repeated blocks of 12 kinds in 6 stages; 1 stage has 1 block, or 2.
    assert len(few) == 2 * 12 * 6
    rates = {each["optimizer.learning_rate"] for each in picks}
    assert rates == {0.1, 0.2}


def network_in(space: Space, picks: Picks) -> ModelConfig:
    experiment = tiny.experiment(model=B0)
    return with_settings(experiment, settings(space, picks)).model


def test_a_search_compiles_before_its_trials_which_read_the_table(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    search, study = searches.search(cost="compiled", trials=2), epath.Path(tmp_path / "study")
    lines: list[str] = []
    run_search(search, study, Inline(), report=lines.append)
    first = [line for line in lines if line.startswith("traffic ")]
    assert len(first) == world.compiled.total() > 0
    ends = next(line for line in lines if line.startswith("trial "))
    assert lines.index(first[-1]) < lines.index(ends)
    step_time = step_time_of(search, study)
    assert step_time(search.experiment.model) == 1
    for seed in range(20):
        picks = sample(search.space, np.random.default_rng(seed))
        model = with_settings(search.experiment, settings(search.space, picks)).model
        assert step_time(model) > 0
    assert step_time.source.endswith("128 images of 40 pixels in bfloat16")
    run_search(dataclasses.replace(search, trials=3), study, Inline(), report=lines.append)
    assert len(first) == world.compiled.total()


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install jax[tpu]"
)
def test_a_table_predicts_a_whole_network(tmp_path: Path) -> None:
    rows = tiny.MODEL.stages or ()
    reference = dataclasses.replace(tiny.MODEL, dtype="bfloat16")
    deeper = dataclasses.replace(
        reference, stages=(rows[0], dataclasses.replace(rows[1], repeats=3))
    )
    one = Compiled(reference, image_size=64, batch_size=64, classes=10, directory=tmp_path)
    table = one.table([deeper])
    assert table.bytes(deeper) == pytest.approx(one.whole(deeper), rel=0.1)
    assert table(deeper) > 1.05
