"""A trial: what becomes of a candidate, and what is not its fault."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import searches
from etils import epath
from jax.errors import JaxRuntimeError

from effnetv2_jax.data import DataError
from effnetv2_jax.nas import trial
from effnetv2_jax.nas.architecture import network_hash
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.records import (
    SEARCH,
    Proposal,
    Result,
    directory_of,
    read_result,
    write_json,
    write_proposal,
)
from effnetv2_jax.nas.space import sample, settings
from effnetv2_jax.nas.study import Study, open_study
from effnetv2_jax.train import loop
from effnetv2_jax.train.divergence import DivergenceError

PICKS = sample(searches.SPACE, np.random.default_rng(0))
CANDIDATE = with_settings(searches.search().experiment, settings(searches.SPACE, PICKS))


@pytest.fixture
def directory(tmp_path: Path) -> epath.Path:
    return proposal_in(epath.Path(tmp_path), searches.search())


def proposal_in(study: epath.Path, search: Search, **fields: Any) -> epath.Path:
    """A study with a proposal; returns the trial's directory."""
    study.mkdir(exist_ok=True)
    write_json(study / SEARCH, search.resolved(1).to_json())
    directory = directory_of(study, 3)
    write_proposal(directory, Proposal(number=3, picks=PICKS, hash="abc", seen=0, **fields))
    return directory


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Puts a function in the place of training, and the parameters' count in that of counting."""

    def put(train: Callable[[], Any]) -> list[Any]:
        calls: list[Any] = []

        def fake(experiment: Any, workdir: epath.Path) -> Any:
            calls.append(experiment)
            write_json(workdir / "classes.json", ["a", "b"])
            (workdir / "metrics.jsonl").write_text('{"step": 8, "params_sha256": "feed"}\n')
            return train()

        monkeypatch.setattr(loop, "train", fake)
        monkeypatch.setattr(
            trial,
            "count_parameters",
            lambda experiment, classes: 200 if experiment.model == CANDIDATE.model else 100,
        )
        return calls

    return put


Trained = Callable[[Callable[[], Any]], list[Any]]


def test_a_score(directory: epath.Path, trained: Trained) -> None:
    calls = trained(lambda: {"top1": 0.5})
    result = trial.run_trial(directory)
    assert calls == [CANDIDATE]
    assert (result.state, result.accuracy, result.parameters) == ("complete", 0.5, 200)
    assert result.reward == pytest.approx(0.5 * 2**-0.05)
    assert (result.step_time, result.step_time_source) == (1.0, "none")
    assert (result.params_sha256, result.network) == ("feed", network_hash(CANDIDATE.model))
    assert read_result(directory) == result
    # Once and for good.
    assert trial.run_trial(directory) == result
    assert len(calls) == 1


def test_the_step_time_of_a_table(tmp_path: Path, trained: Trained) -> None:
    calls = trained(lambda: {"top1": 0.5})
    table = tmp_path / "table.json"
    table.write_text(json.dumps({network_hash(CANDIDATE.model): 2.0}))
    study = epath.Path(tmp_path / "study")
    search = searches.search(cost="table", cost_path=str(table))
    result = trial.run_trial(proposal_in(study, search))
    assert result.reward == pytest.approx(0.5 * 2**-0.07 * 2**-0.05)
    assert result.step_time_source == f"table {table}"
    search = searches.search(cost="table", cost_path=str(table), max_step_time=1.9)
    slow = trial.run_trial(proposal_in(epath.Path(tmp_path / "other"), search))
    assert slow.state == "pruned"
    assert "too slow: its step takes 2 times the reference's" in slow.reason
    assert len(calls) == 1, "what is too slow is not trained"


def _raise(error: BaseException) -> Callable[[], Any]:
    def train() -> Any:
        raise error

    return train


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (_raise(DivergenceError("step 3 diverged")), "not finite: step 3 diverged"),
        (_raise(JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GB")), "out of memory: RESOURCE_EXHAUSTED"),
        (_raise(MemoryError()), "out of memory on the host"),
        (lambda: {"top1": float("nan")}, "not finite: its accuracy"),
        (lambda: {"top1": float("inf")}, "not finite: its accuracy"),
    ],
)
def test_candidates_that_are_given_up(
    directory: epath.Path, trained: Trained, train: Callable[[], Any], reason: str
) -> None:
    trained(train)
    result = trial.run_trial(directory)
    assert (result.state, result.reward) == ("pruned", None)
    assert result.reason.startswith(reason)
    assert read_result(directory) == result


@pytest.mark.parametrize(
    "error", [DataError("no such folder"), OSError(28, "No space"), JaxRuntimeError("INTERNAL: x")]
)
def test_what_is_not_the_candidates_fault(
    directory: epath.Path, trained: Trained, error: Exception
) -> None:
    trained(_raise(error))
    with pytest.raises(type(error)):
        trial.run_trial(directory)
    assert read_result(directory) is None
    trained(lambda: {"top1": 0.5})
    assert trial.run_trial(directory).complete


def test_fields_that_make_no_sense_together(tmp_path: Path) -> None:
    path = proposal_in(epath.Path(tmp_path), searches.search(), settings={"batch_size": -1})
    assert "it makes no sense: config.stages[0].batch_size" in trial.run_trial(path).reason


def test_a_time_that_is_over(tmp_path: Path, trained: Trained) -> None:
    trained(lambda: time.sleep(5))
    path = proposal_in(epath.Path(tmp_path), searches.search(max_seconds=0.1))
    assert "too slow: it took more than" in trial.run_trial(path).reason


def test_a_trial_that_is_killed_again_and_again(tmp_path: Path, trained: Trained) -> None:
    trained(_raise(KeyboardInterrupt()))  # As a kill leaves it: without a word.
    path = proposal_in(epath.Path(tmp_path), searches.search(max_deaths=3))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trial.run_trial(path)
    # It got further, and so may be killed as often again.
    (path / "checkpoints" / "6").mkdir(parents=True)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            trial.run_trial(path)
    assert "it was killed 3 times in a row at or after step 6" in trial.run_trial(path).reason


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from effnetv2_jax.nas.trial import end_with;"
        "end_with(int(sys.argv[1])); print('bound', flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], "
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, check=False)
    pid = int(done.stdout)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_faults_on_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "effnetv2_jax.nas.trial", str(tmp_path / "trials" / "0")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/trials/0 is no trial")


@pytest.mark.long
def test_trials_that_are_killed_while_they_train(tmp_path: Path) -> None:
    """Two local workers, real networks: the parameters are those of a search left alone."""
    from effnetv2_jax.nas.executors.local import LocalProcesses

    search = searches.search(trials=3, workers=2)
    results: list[dict[int, Result]] = []
    for name, kills in (("alone", 0), ("killed", 4)):
        study = epath.Path(tmp_path / name)
        executor = LocalProcesses(2)
        trials = Study(open_study(search, study, workers=2), study, executor, report=print)
        killed: set[tuple[str, int]] = set()
        for _ in trials.run():
            for path in Path(study).glob("trials/*/starts.jsonl"):
                start = json.loads(path.read_text().splitlines()[-1])
                inside = (path.parent / "config.json").exists()
                victim = (path.parent.name, start["pid"])
                runs = inside and not (path.parent / "trial.json").exists()
                if runs and len(killed) < kills and victim not in killed:
                    os.kill(start["pid"], signal.SIGKILL)
                    killed.add(victim)
        executor.close()
        assert len(killed) == kills
        results.append(trials.results)
    for one, other in zip(*(found.values() for found in results), strict=True):
        assert one.params_sha256
        assert (one.params_sha256, one.reward) == (other.params_sha256, other.reward)
