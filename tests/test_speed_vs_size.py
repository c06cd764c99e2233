"""The comparison of networks: what follows from what was timed, and what is kept."""

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effnetv2_jax import list_models
from effnetv2_jax.models.registry import family_of

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[Any, Any, Any]]:
    """`networks`, the script and its page."""
    sys.path.insert(0, str(EXPERIMENTS))
    names = ("benchmarks.networks", "speed_vs_size", "speed_vs_size_page")
    yield tuple(map(importlib.import_module, names))  # type: ignore[misc]
    sys.path.remove(str(EXPERIMENTS))


def test_every_network_is_here_and_takes_its_sizes(modules: Any) -> None:
    networks, _, page = modules
    names = set(list_models())
    for network in networks.NETWORKS.values():
        assert network.name in names
        assert min(network.timed_sizes) >= family_of(network.name).config.MIN_SIZE
    assert {each.key for each in networks.NETWORKS.values()} == networks.NETWORKS.keys()
    for claim in page.CLAIMS:
        assert {claim.ours, claim.other} <= networks.NETWORKS.keys()


def test_the_sizes_of_a_progressive_training_are_the_papers(modules: Any) -> None:
    networks, _, _ = modules
    assert networks.NETWORKS["v2-s"].phases[0].sizes == (128, 185, 242, 300)
    assert networks.NETWORKS["v2-m"].phases[0].sizes == (128, 212, 296, 380)
    assert networks.NETWORKS["v2-s"].timed_sizes == (128, 300)


def run(rate: float, batch: int = 1) -> dict[str, Any]:
    return {"images_per_second": [rate], "batch": batch}


def test_hours_follow_from_rates(modules: Any) -> None:
    networks, _, page = modules
    network = dataclasses.replace(
        networks.NETWORKS["v2-s"], phases=(networks.Phase(2, (10, 20, 30), images=600),)
    )
    # .1 s at 10 px, .9 at 30: linear in pixels, thus .4 at 20.
    found = {"runs": {"train 10 px, batch 1": [[10.0]], "train 30 px, batch 1": [[1 / 0.9]]}}
    expected = 2 * 600 * (0.1 + 0.4 + 0.9) / 3
    assert page.training_seconds(network, found) == pytest.approx(expected)
    del found["runs"]["train 30 px, batch 1"]
    assert page.training_seconds(network, found) is None


def test_results_are_kept_and_counted(modules: Any, tmp_path: Path) -> None:
    networks, script, page = modules
    path = tmp_path / "results.json"
    results = script.Results(path)
    counts = {"parameters": 2_000_000, "macs": 3_000_000_000, "activations": 4_000_000}
    for key, rate in (("v2-s", 8.0), ("b5", 2.0)):
        for speed in (rate, rate, 100 * rate):
            runs = {f"train {size}": run(speed) for size in networks.NETWORKS[key].timed_sizes}
            runs[f"inference {networks.NETWORKS[key].eval_size}"] = run(speed, 4)
            found = {"counts": dict(counts), "runs": runs, "load": 2.0, "dtype": "float32"}
            results.add(key, "ours", found)
    results.count("v2-m", dict(counts))
    results.failed["b7 ours"] = "not ready"
    results.save()
    again = script.Results(path)
    assert (again.passes("v2-s", "ours"), again.passes("v2-m", "ours")) == (3, 0)
    content = {"networks": again.networks, "failed": again.failed, "compiled": {}}
    (row,) = (line for line in page.table(content) if line.startswith("| v2-s |"))
    assert "| 83.9 | 2.0 | 3.00 | 4.0 | 128, 300 | 8, 8 | 15,570 | 7.1 | 384 | 8 |" in row
    claims = {line.split(" | ")[0]: line.split(" | ")[-1] for line in page.claims(content)[2:]}
    assert claims["| V2-S trains faster than B5, at 83.9 and 83.7 % (hours)"] == "4.00 |"
    assert claims["| V2-S is smaller than B5 (parameters)"] == "1.00 |"
    assert "| v2-m | 85.1 | 2.0 | 3.00 | 4.0 | 128, 380 | -, - | - | 13 | 480 | - |" in page.table(
        content
    )
    assert sum(value == "not measured |" for value in claims.values()) == len(claims) - 2
    assert "load average 2 to 2" in page.about(content)
