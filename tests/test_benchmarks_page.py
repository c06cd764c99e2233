"""The page of measurements says what the committed measurements say."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = runpy.run_path(str(ROOT / "experiments" / "benchmarks_page.py"))


def rendered(folder: Path, result: dict[str, Any], name: str = "conv_ops_cpu") -> str:
    (folder / f"{name}.json").write_text(json.dumps(result))
    text: str = PAGE["page"](folder)
    return text


def ratios(result: dict[str, Any]) -> dict[str, Any]:
    return dict(PAGE["find_ratios"](PAGE["with_ranges"](result)))


def test_the_page_is_up_to_date() -> None:
    committed = PAGE["PAGE"].read_text()
    assert committed == PAGE["page"](PAGE["RESULTS"]), "run python experiments/benchmarks_page.py"
    plots = {PAGE["PAGE"].parent / plot for plot in re.findall(r"!\[.*\]\((.*)\)", committed)}
    assert plots == set(PAGE["PLOTS"].glob("*.png"))


def test_a_result_without_a_title_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="unheard_of_cpu"):
        rendered(tmp_path, {}, "unheard_of_cpu")
    # A longer name that ends like one with a title does not belong to it.
    assert PAGE["prefix_of"](Path("gpu_step_vs_timm_h100.json")) == "gpu_step_vs_timm"
    assert PAGE["prefix_of"](Path("step_vs_timm.json")) == "step_vs_timm"


def test_where_a_result_comes_from(tmp_path: Path) -> None:
    about = {
        "date": "2026-01-31",
        "devices": ["chip", "chip"],
        "cpu": "processor",
        "cores": 2,
        "python": "3.11.7",
        "versions": {"jax": "0.10.2"},
        "command": "python script.py --a=b",
    }
    text = rendered(tmp_path, about)
    assert "2026-01-31, chip (2), processor, 2 cores, Python 3.11.7, jax 0.10.2" in text
    assert "```\npython script.py --a=b\n```" in text
    assert "|" not in text
    assert "cores" not in rendered(tmp_path, {"date": "2026-01-31"})


def test_whatever_a_result_has_is_in_a_table(tmp_path: Path) -> None:
    text = rendered(
        tmp_path,
        {
            "model": "a|b",
            "bytes": 1234567,
            "seconds": 0.123456,
            "seconds_range": [0.1, 0.2],
            "milliseconds": {"ours": 1.5, "timm": {"median": 3, "range": [2, 4]}},
            "failed": {},
            "stages": [{"size": 32, "parts": {"step": 1.0}}, {"size": 40, "flag": True}],
            "sides": {"ours": {"rate": 12345.6}, "timm": {"rate": None}},
            "sizes": [
                {"size": 32, "ours": {"kinds": [{"kind": "a"}, {"kind": "b"}], "sum": 5}},
                {"size": 64},
            ],
            "models": {"b0": {"forward": {"ours": 1}, "backward": {"ours": 2}}},
        },
    )
    for line in (
        r"| model | a\|b |",
        "| bytes | 1,234,567 |",
        "| seconds | 0.1235 (0.1 to 0.2) |",
        "| milliseconds, ours | 1.5 |",
        "| milliseconds, timm | 3 (2 to 4) |",
        "| size | parts, step | flag |",
        "| 32 | 1 | - |",
        "| 40 | - | yes |",
        "| ours | 12,346 |",
        "| timm | - |",
        "| size | ours, sum |",
        "| 32 | 5 |",
        "**sizes, size 32, ours, kinds**",
        "| b |",
        "**models, b0**",
        "| backward | 2 |",
    ):
        assert line in text.splitlines()
    assert "failed" not in text
    assert "**models**" not in text


def test_a_wide_table_is_turned_on_its_side(tmp_path: Path) -> None:
    rows = [{"stage": stage} | {f"field {i}": i for i in range(8)} for stage in (1, 2)]
    assert "| stage | 1 | 2 |\n| --- | ---: | ---: |\n| field 0 | 0 | 0 |" in rendered(
        tmp_path, {"stages": rows}
    )


def test_ratios_are_found_wherever_they_are() -> None:
    measured = PAGE["Measured"]
    found = ratios(
        {
            "ours_over_timm": 1.2,
            "ours_over_timm_range": [1.1, 1.3],
            "ours_over": {"eager": {"median": 0.5, "range": [0.4, 0.6]}},
            "name_over_all": "no number",
            "stages": [
                {"batch": 8, "stage": 1, "size": 32, "loop_over_step": 0.9},
                {"batch": 8, "stage": 2, "size": 40, "loop_over_step": 0.8},
            ],
        }
    )
    assert found == {
        "ours / timm": measured(1.2, 1.1, 1.3),
        "ours / eager": measured(0.5, 0.4, 0.6),
        "stages, stage 1, loop / step": 0.9,
        "stages, stage 2, loop / step": 0.8,
    }
