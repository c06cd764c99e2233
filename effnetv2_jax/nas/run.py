"""A search from beginning to end: trials, finals, winner."""

import time
from collections.abc import Callable, Sequence

from etils import epath

from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.cost.covering import covering
from effnetv2_jax.nas.cost.parts_table import FILE as TRAFFIC
from effnetv2_jax.nas.cost.parts_table import write_parts_table
from effnetv2_jax.nas.executors import Executor
from effnetv2_jax.nas.executors.local import LocalProcesses
from effnetv2_jax.nas.finals import Finalist, agreement, run_finals, table
from effnetv2_jax.nas.optuna_copy import FILE, write_copy
from effnetv2_jax.nas.records import Result, directory_of
from effnetv2_jax.nas.space import settings
from effnetv2_jax.nas.study import Standing, Study, open_study
from effnetv2_jax.nas.trial import step_time_of
from effnetv2_jax.nas.winner import write_winner
from effnetv2_jax.outputs.lock import lock_workdir
from effnetv2_jax.outputs.table import align
from effnetv2_jax.outputs.workdir import read_winner, workdir_path

_COPY_SECONDS = 60.0
"""Between two additions to the copy for Optuna, and two reports."""


def make_executor(search: Search) -> Executor:
    """The executor that a search names.

    Raises:
      ConfigError: it is not to be had.
    """
    if search.executor == "local":
        return LocalProcesses(search.workers, search.cores)
    # Imported here: the extra `[ray]` need not be installed.
    from effnetv2_jax.nas.executors.ray import RayTasks

    return RayTasks(
        search.workers,
        cores=search.cores,
        gpus=search.gpus,
        resources=dict(search.resources),
        address=search.address,
    )


def run_search(
    search: Search,
    workdir: epath.PathLike,
    executor: Executor,
    *,
    report: Callable[[str], None],
    show: Callable[[Standing], None] = lambda standing: None,
) -> Result | None:
    """Runs or continues the search in `workdir`.

    Args:
      search: what is searched; checked.
      workdir: of the study, local or `gs://`.
      executor: runs the trials; the caller closes it.
      report: is told what happens, in lines.
      show: is told where the search stands, about once a second.

    Returns:
      The winner's result, of the finals where there are any; None where every trial was given up.

    Raises:
      StudyError: it cannot go on, or another search is there.
      ConfigError: S is not to be had.
      TopologyError: there is no such topology, or its compiler is missing.
      WorkdirError: another search uses the directory.
    """
    study = workdir_path(workdir)
    if search.cost != "compiled":  # Whose table is made in the study.
        step_time_of(search, study)
    with lock_workdir(study):
        search = open_study(search, study, workers=executor.workers)
        if search.cost == "compiled":
            _compile_table(search, study, report)
        trials = Study(search, study, executor, report=report)
        report(
            f"{study}: {executor.workers} trials at a time, proposed by {search.sampler} from the "
            f"results of those {search.lag} before and earlier"
        )
        if trials.proposals:
            report(f"continuing with {len(trials.results)} trials done")
        written = _written(study, trials.standing.best)
        copied = time.monotonic()
        try:
            for standing in trials.run():
                best = standing.best
                if best not in (None, written) and _write_best(search, study, trials, best, report):
                    written = best
                if time.monotonic() - copied > _COPY_SECONDS:
                    copied = time.monotonic()
                    _copy(search, study, trials, report)
                    _page(study, report)
                show(standing)
        finally:
            _copy(search, study, trials, report)
            _page(study, report)
        best = trials.standing.best
        if best is None or not search.finals:
            return best
        finalists = run_finals(
            search,
            study,
            trials.proposals,
            list(trials.results.values()),
            executor,
            report=report,
        )
        return _decide(search, study, finalists, report)


def _compile_table(search: Search, study: epath.Path, report: Callable[[str], None]) -> None:
    """Writes what the trials read S from, unless it is there: the blocks of the whole space.

    Raises:
      ConfigError, TopologyError: it is not to be had.
    """
    if (study / TRAFFIC).exists():
        return
    # Imported here, for its JAX.
    from effnetv2_jax.nas.cost.compiled import compiler_for

    networks = [
        with_settings(search.experiment, settings(search.space, picks)).model
        for picks in covering(search.space)
    ]
    compiler = compiler_for(search)
    for line in compiler.prepare(networks):
        report(f"traffic {line}")
    write_parts_table(study / TRAFFIC, compiler.table(networks))


def _written(study: epath.Path, best: Result | None) -> Result | None:
    """The best of the trials where `best.json` knows it, or has what came of the finals."""
    winner = read_winner(study)
    if winner is None or best is None:
        return None
    return best if winner["finals"] or winner["trial"] == best.number else None


def _write_best(
    search: Search,
    study: epath.Path,
    trials: Study,
    best: Result,
    report: Callable[[str], None],
) -> bool:
    """Whether the best so far could be written; if not, the search goes on and tries again."""
    workdir = str(directory_of(study, best.number).relative_to(study))
    try:
        write_winner(study, search, trials.proposals[best.number], best, workdir=workdir)
    except OSError as error:
        report(f"best.json was not written: {error}")
        return False
    return True


def _decide(
    search: Search,
    study: epath.Path,
    finalists: Sequence[Finalist],
    report: Callable[[str], None],
) -> Result:
    """Names the winner of the finals."""
    rows = table(finalists)
    report("\n".join(align(rows)))
    if len(finalists) > 1:
        report(f"Kendall's tau between the search and the finals: {agreement(finalists):.2f}")
    first = finalists[0]
    workdir, result = first.best_run
    told = {"mean_reward": first.mean, "rewards": first.rewards}
    write_winner(study, search, first.proposal, result, workdir=workdir, finals=told)
    _page(study, report)
    return result


def _copy(search: Search, study: epath.Path, trials: Study, report: Callable[[str], None]) -> None:
    """Brings the copy for Optuna up to date; without it the search is as good."""
    try:
        write_copy(search, study, trials.proposals, trials.result_of)
    except Exception as error:
        report(f"the copy for Optuna, {study / FILE}, was not written: {error}")


def _page(study: epath.Path, report: Callable[[str], None]) -> None:
    """Writes the report anew; without it the search is as good."""
    # Imported here: a search that is stopped at once needs no templates.
    from effnetv2_jax.nas.report.page import PAGE, write_study_report

    try:
        write_study_report(study)
    except Exception as error:
        report(f"the report, {study / PAGE}, was not written: {error}")
