"""The page of a search: what it says, of studies in every condition."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import searches
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from searches import Inline, result, run

from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.nas import choice
from effnetv2_jax.nas.architecture import canonical
from effnetv2_jax.nas.records import Proposal, Result, StudyError, directory_of
from effnetv2_jax.nas.report.contents import contents
from effnetv2_jax.nas.report.page import write_study_report
from effnetv2_jax.nas.report.pictures import Dot, Dots, front, network, scatter
from effnetv2_jax.nas.study import Study
from effnetv2_jax.nas.winner import write_winner
from effnetv2_jax.report import main

SOURCE = "traffic of fusions"


def scored(proposal: Proposal) -> Result:
    """Every fifth is given up; S and P differ."""
    if proposal.number % 5 == 4:
        return searches.pruned(proposal, "out of memory: <script>alert(1)</script>")
    found = result(proposal)
    cost = 1 + sum(value for value in proposal.picks.values() if isinstance(value, int)) / 10
    return dataclasses.replace(
        found, step_time=cost, parameters=int(1e6 * cost), step_time_source=SOURCE
    )


def study_of(folder: Path, trials: int = 30) -> Study:
    searched = searches.search(trials=trials, sampler="random")
    study = run(searched, folder, Inline(scored))
    best = study.standing.best
    assert best is not None
    where = directory_of(epath.Path(folder), best.number).relative_to(folder)
    write_winner(
        epath.Path(folder), searched, study.proposals[best.number], best, workdir=str(where)
    )
    return study


def test_the_page_needs_no_network_and_says_what_came_of_the_search(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    page = Path(write_study_report(tmp_path)).read_text()
    assert not re.search(r"https?://|<link|<img|@import|src=", page)
    assert "<script>alert" not in page
    assert page.count("out of memory: &lt;script&gt;") == 6
    best = study.standing.best
    assert best is not None
    assert f"top-1 of trial {best.number}" in page
    assert f"({24} trials)" in page
    assert SOURCE in page
    assert "the best 3 of 24 trials" in page
    # A dot for each of 24 trials in three diagrams, and the winner twice more.
    assert page.count('<circle class="dot') == 24 + 2 * (24 + 1)
    row = searches.SPACE[0]
    assert all(f">{label}<" in page for label in row.labels)


def test_shares_of_the_best_and_of_all(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    found = contents(epath.Path(tmp_path))
    assert [each.title for each in found.comparisons] == ["operator", "kernel", "expand", "repeats"]
    fives = sum(each.picks["model.stages[0].kernel"] == 5 for each in study.proposals)
    kernel = found.comparisons[1].bars
    assert f"stage 1: 5 in {fives / len(study.proposals):.0%} (all)" in kernel
    assert (found.done, found.complete, len(found.pruned), found.best_tenth) == (30, 24, 6, 3)


def test_a_study_that_has_just_begun(tmp_path: Path) -> None:
    searched = searches.search(trials=3)
    with pytest.raises(searches.Killed):
        run_until_killed(searched, tmp_path)
    page = Path(write_study_report(tmp_path)).read_text()
    assert page.count("No trial has") == 3
    assert "0 of 3" in page
    with pytest.raises(StudyError, match="is no study"):
        write_study_report(tmp_path / "none")


def run_until_killed(searched: object, folder: Path) -> None:
    killed = Inline(scored, ends=0)
    study = run(searched, folder, killed)  # type: ignore[arg-type]
    if not study.results:
        raise searches.Killed


def test_other_fields_and_mixed_sources(tmp_path: Path) -> None:
    space = (choice("optimizer.learning_rate", 0.1, 0.2), choice("label_smoothing", 0.0, 0.1))
    searched = searches.search(space, trials=4, sampler="random")

    def from_two(proposal: Proposal) -> Result:
        return dataclasses.replace(
            result(proposal), step_time_source=str(proposal.picks["label_smoothing"])
        )

    run(searched, tmp_path, Inline(from_two))
    (tmp_path / "step_time").mkdir()
    for index, spread in enumerate((0.01, 0.02, 0.06)):
        record = {"ratio": {"spread": spread}}
        (tmp_path / "step_time" / f"{index}.json").write_text(json.dumps(record))
    page = Path(write_study_report(tmp_path)).read_text()
    assert "S comes from several sources" in page
    assert "2.0 % of S in the median over 3 networks, 6.0 % at most" in page
    assert "optimizer.learning_rate" in page


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    ahead = front([(float(x), float(y)) for x, y in points])
    for place, (x, y) in enumerate(points):
        beaten = any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        first = points.index((x, y)) == place
        assert (place in ahead) == (first and not beaten)


def test_trials_that_are_all_alike_are_drawn_too() -> None:
    alike = [Dots("trials", 0, [Dot(3.0, 0.0, "one"), Dot(3.0, 0.0, "other")])]
    drawn = scatter("reward", alike, x_title="trial", x_label=str, y_label=str).svg
    assert drawn.count("<circle") == 2
    assert "nan" not in drawn


def test_a_network_is_drawn_block_by_block() -> None:
    model = canonical(EfficientNetConfig(name="efficientnetv2-s"))
    assert isinstance(model, EfficientNetConfig)
    drawn = network(model, 300)
    assert drawn.count("<rect") == 40
    assert "stage 6: 15 x" in drawn
    assert "10 x 10 px, SE 0.25" in drawn


def test_the_command_writes_the_page_of_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(tmp_path, trials=3)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").exists()
    (tmp_path / "search.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "search.json is not valid JSON" in capsys.readouterr().err
