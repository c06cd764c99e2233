"""The coordinator: what it proposes, what it trains, and what it makes of faults."""

import dataclasses
import json
from pathlib import Path

import pytest
import searches
from etils import epath
from searches import Inline, pruned, result, run

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.nas import choice, records
from effnetv2_jax.nas.config import Search, check
from effnetv2_jax.nas.live import text
from effnetv2_jax.nas.records import (
    Proposal,
    Result,
    StudyError,
    directory_of,
    read_result,
    read_trials,
)
from effnetv2_jax.nas.reward import reward
from effnetv2_jax.nas.runner import Runner
from effnetv2_jax.nas.study import Study, best_of, open_study

SAMPLERS = ["random", "tpe", "nsga2", "evolution"]


def proposed(study: Study) -> list[tuple[object, ...]]:
    """All of what was proposed that a later start could change."""
    return [
        (p.number, dict(p.picks), p.seen, p.duplicate_of, dict(p.attributes))
        for p in study.proposals
    ]


def some_are_given_up(proposal: Proposal) -> Result:
    return pruned(proposal) if proposal.number % 9 == 4 else result(proposal)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_depend_on_neither_timing_nor_interruptions(tmp_path: Path, sampler: str) -> None:
    searched = searches.search(trials=30, sampler=sampler, population=8, tournament=3)
    undisturbed = run(searched, tmp_path / "one", Inline(some_are_given_up))
    again = run(searched, tmp_path / "two", Inline(some_are_given_up, seed=7))
    for ends in (0, 1, 9, 2, 5):
        killed = Inline(some_are_given_up, seed=ends, ends=ends)
        run(searched, tmp_path / "three", killed)
    continued = run(searched, tmp_path / "three", Inline(some_are_given_up, seed=3))
    assert proposed(undisturbed) == proposed(again) == proposed(continued)
    assert undisturbed.results == again.results == continued.results
    assert undisturbed.standing.done == 30
    assert undisturbed.standing.best == best_of(continued.results.values())


def test_several_objectives_continue_likewise(tmp_path: Path) -> None:
    for sampler in ("tpe", "nsga2"):
        searched = searches.search(
            trials=18, sampler=sampler, objective="pareto", population=6, tournament=2
        )
        undisturbed = run(searched, tmp_path / f"{sampler}1", Inline())
        run(searched, tmp_path / f"{sampler}2", Inline(ends=11, seed=2))
        continued = run(searched, tmp_path / f"{sampler}2", Inline(seed=3))
        assert proposed(undisturbed) == proposed(continued)


def test_a_trial_is_proposed_from_the_results_that_lag_behind(tmp_path: Path) -> None:
    study = run(searches.search(trials=20, lag=5), tmp_path / "s", Inline())
    assert [p.seen for p in study.proposals] == [max(0, n - 4) for n in range(20)]
    # With fewer workers, and later with more, nothing changes.
    for ends, workers in ((6, 2), (5, 9)):
        run(searches.search(trials=20, lag=5), tmp_path / "t", Inline(workers=workers, ends=ends))
    again = run(searches.search(trials=20, lag=5), tmp_path / "t", Inline(workers=1))
    assert proposed(study) == proposed(again)


def test_another_seed_proposes_others(tmp_path: Path) -> None:
    one, other = (
        run(searches.search(trials=3, seed=seed), tmp_path / str(seed), Inline()) for seed in (0, 1)
    )
    assert proposed(one) != proposed(other)


def test_duplicates_are_not_trained_again(tmp_path: Path) -> None:
    space = (choice("seed", 0, 1), choice("epochs", 1.0, 2.0))
    executor = Inline()
    study = run(searches.search(space, trials=9, sampler="random"), tmp_path / "s", executor)
    assert sorted(executor.trained) == sorted(study.results)
    assert len(executor.trained) == 4, "of nine, as there are no more"
    doubles = [p for p in study.proposals if p.duplicate_of is not None]
    assert doubles
    for double in doubles:
        original = study.proposals[double.duplicate_of or 0]
        assert original.picks == double.picks
        assert original.duplicate_of is None
        assert study.result_of(double.number) == study.results[original.number]
    again = Inline()
    assert proposed(run(searches.search(space, trials=9, sampler="random"), tmp_path / "s", again))
    assert not again.trained


def test_a_study_of_a_version_with_other_hashes_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = (choice("seed", 0, 1), choice("epochs", 1.0, 2.0))
    searched = searches.search(space, trials=4, sampler="random")
    with monkeypatch.context() as earlier:
        before = "effnetv2_jax.nas.study.candidate_hash"
        earlier.setattr(before, lambda experiment: f"{experiment.seed}{experiment.epochs}")
        run(searched, tmp_path / "s", Inline(ends=2))
    executor = Inline()
    study = run(searched, tmp_path / "s", executor)
    assert len(study.results) == 4
    assert len(executor.trained) == 2, "of four candidates two were trained before"


def test_tpe_finds_more_than_chance(tmp_path: Path) -> None:
    rewards = {}
    for sampler in ("tpe", "random"):
        found = [
            run(
                searches.search(trials=30, sampler=sampler, seed=s),
                tmp_path / f"{sampler}{s}",
                Inline(),
            )
            for s in range(3)
        ]
        rewards[sampler] = sum(study.standing.best.reward for study in found)  # type: ignore[union-attr,misc]
    assert rewards["tpe"] > rewards["random"]


def test_a_failure_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnetv2_jax.nas.runner._RETRY_SECONDS", (0.0,))
    failed: list[int] = []

    def fails_once(proposal: Proposal) -> Result | str:
        if proposal.number % 2 and proposal.number not in failed:
            failed.append(proposal.number)
            return "No space left on device"
        return result(proposal)

    said: list[str] = []
    disturbed = run(searches.search(trials=12), tmp_path / "a", Inline(fails_once), said)
    undisturbed = run(searches.search(trials=12), tmp_path / "b", Inline())
    assert len(failed) == 6
    assert disturbed.results == undisturbed.results
    assert any("trials/0001: No space left on device" in line for line in said)


def test_a_proposal_that_cannot_be_written_is_not_proposed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnetv2_jax.nas.study._WAIT_SECONDS", 0.0)
    searched = searches.search(trials=12, lag=1)  # So that nothing else runs meanwhile.
    undisturbed = run(searched, tmp_path / "one", Inline())
    write, full = records.write_proposal, [3, 3, 7]

    def on_a_full_disk(directory: epath.Path, proposal: Proposal) -> None:
        if proposal.number in full:
            full.remove(proposal.number)
            raise OSError(28, "No space left on device")
        write(directory, proposal)

    monkeypatch.setattr("effnetv2_jax.nas.study.write_proposal", on_a_full_disk)
    said: list[str] = []
    disturbed = run(searched, tmp_path / "two", Inline(), said)
    assert not full
    assert any("No space left" in line for line in said)
    assert proposed(disturbed) == proposed(undisturbed)


def test_many_failures_in_a_row_stop_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnetv2_jax.nas.runner._RETRY_SECONDS", (0.0,))
    searched = searches.search(trials=12, max_failures=3)
    with pytest.raises(StudyError, match=r"(?s)3 failures in a row.*same command goes on.*no data"):
        run(searched, tmp_path / "s", Inline(lambda proposal: "no data"))
    assert run(searched, tmp_path / "s", Inline()).standing.done == 12


def test_many_given_up_in_a_row_stop_the_search(tmp_path: Path) -> None:
    searched = searches.search(trials=12, max_failures=3)
    with pytest.raises(StudyError, match=r"(?s)the last 3 trials were all given up.*too slow"):
        run(searched, tmp_path / "s", Inline(lambda proposal: pruned(proposal, "too slow")))
    more = dataclasses.replace(searched, max_failures=13)
    study = run(more, tmp_path / "s", Inline(pruned))
    assert (study.standing.done, study.standing.pruned, study.standing.best) == (12, 12, None)


def test_a_study_belongs_to_its_search(tmp_path: Path) -> None:
    path = epath.Path(tmp_path / "s")
    first = open_study(searches.search(trials=10), path, workers=4)
    assert (first.sampler, first.lag) == ("tpe", 8)
    # More trials, for which another sampler would be the default, and other workers.
    later = open_study(searches.search(trials=500, workers=9), path, workers=9)
    assert (later.sampler, later.lag, later.trials) == ("tpe", 8, 500)
    with pytest.raises(StudyError, match=r"(?s)another search.*search.seed: 0 -> 1"):
        open_study(searches.search(trials=10, seed=1), path, workers=4)
    experiment = dataclasses.replace(first.experiment, batch_size=32)
    with pytest.raises(StudyError, match=r"(?s)another search.*config.batch_size: 16 -> 32"):
        open_study(dataclasses.replace(first, experiment=experiment), path, workers=4)
    data = dataclasses.replace(first.experiment.data, threads=3)
    moved = dataclasses.replace(first.experiment, data=data)
    assert open_study(dataclasses.replace(first, experiment=moved), path, workers=4)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").touch()
    with pytest.raises(StudyError, match="holds something else"):
        open_study(first, epath.Path(tmp_path / "pictures"), workers=4)


def test_a_trial_that_is_missing_is_named(tmp_path: Path) -> None:
    study = run(searches.search(trials=5), tmp_path / "s", Inline())
    path = epath.Path(tmp_path / "s")
    assert read_trials(path) == (study.proposals, study.results)
    directory_of(path, 2).rmtree()
    with pytest.raises(StudyError, match=r"trials/0002 is missing"):
        read_trials(path)


def test_a_result_that_is_torn_is_named(tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_text('{"number": 3, "ha')
    with pytest.raises(StudyError, match=r"trial.json is not valid JSON.*delete it"):
        read_result(epath.Path(tmp_path))
    content = dataclasses.asdict(result(Proposal(number=3, picks={}, hash="", seen=0), 0.5))
    (tmp_path / "trial.json").write_text(json.dumps(content | {"reward": None}))
    with pytest.raises(StudyError, match="a complete trial has a reward"):
        read_result(epath.Path(tmp_path))


def test_only_the_best_keeps_its_checkpoints(tmp_path: Path) -> None:
    def with_checkpoints(proposal: Proposal) -> Result:
        folder = directory_of(epath.Path(tmp_path / "s"), proposal.number) / "checkpoints"
        (folder / "8").mkdir(parents=True)
        return result(proposal)

    study = run(searches.search(trials=10), tmp_path / "s", Inline(with_checkpoints))
    best = study.standing.best
    assert best is not None
    kept = [path.parent.name for path in (tmp_path / "s").glob("trials/*/checkpoints")]
    assert kept == [f"{best.number:04d}"]


def test_a_search_says_itself_in_json() -> None:
    searched = searches.search(lag=3, resources=(("TPU", 4.0),), max_step_time=2.0)
    assert Search.from_json(json.loads(json.dumps(searched.to_json()))) == searched
    with pytest.raises(ConfigError, match="this is no search"):
        Search.from_json({"trials": 3})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trials": 0}, "search.trials must be above 0, not 0"),
        ({"lag": 0}, "search.lag must be above 0, or None, not 0"),
        ({"space": ()}, "search.space has no choices"),
        ({"tournament": 40}, "search.tournament is 40, more than search.population"),
        ({"sampler": "evolution", "objective": "pareto"}, "knows one objective"),
        ({"cost": "table"}, "search.cost_path=FILE belong together"),
        ({"space": (choice("epoch", 1.0),)}, "did you mean 'epochs'"),
        ({"space": 2 * (choice("epochs", 1.0),)}, "search.space chooses epochs twice"),
    ],
)
def test_searches_that_make_no_sense(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(dataclasses.replace(searches.search(), **fields))  # type: ignore[arg-type]


def test_the_reward_of_the_paper() -> None:
    assert reward(0.8, 1.0, 1.0) == 0.8
    assert reward(0.8, 2.0, 1.0) == pytest.approx(0.8 * 2**-0.07)
    assert reward(0.8, 1.0, 3.0) == pytest.approx(0.8 * 3**-0.05)
    assert reward(0.8, 2.0, 1.0, step_time_exponent=0.0) == 0.8


def test_the_line(tmp_path: Path) -> None:
    study = run(searches.search(trials=3), tmp_path / "s", Inline())
    best = study.standing.best
    assert best is not None
    assert text(study.standing, 65.0) == (
        f"3/3 trials done | 0 running | best reward {best.reward:.4f} (trial {best.number}, "
        f"top-1 {best.accuracy:.2%}) | ETA 0:01:05"
    )


def test_a_runner_keeps_to_its_room(tmp_path: Path) -> None:
    executor = Inline(workers=3)
    runner = Runner(executor, at_most=2, max_failures=1, report=print)
    for number in range(5):
        runner.add(epath.Path(tmp_path) / str(number))
    runner.start()
    assert runner.running == 2
    assert runner.busy


def test_a_study_in_an_object_store(remote: epath.Path, tmp_path: Path) -> None:
    searched = searches.search(trials=10)
    here = run(searched, tmp_path / "s", Inline())
    run(searched, remote, Inline(ends=4))
    there = run(searched, remote, Inline(seed=2))
    assert proposed(here) == proposed(there)
    assert here.results == there.results == read_trials(remote)[1]
