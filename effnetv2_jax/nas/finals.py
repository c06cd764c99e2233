"""The finals: the best of a search again, longer and with several seeds, to find the winner.

The seed is an argument of the compiled step, so that all seeds of a finalist share one program.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from etils import epath

from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.executors import Executor
from effnetv2_jax.nas.rank import kendall
from effnetv2_jax.nas.records import FINALS, Proposal, Result, read_result, write_proposal
from effnetv2_jax.nas.runner import Runner

_WAIT_SECONDS = 1.0


class Finalist(NamedTuple):
    """One of the best, after the finals."""

    proposal: Proposal
    short: Result
    """Of its trial."""
    long: tuple[tuple[str, Result], ...]
    """Of its finals: the directory, relative to the study, and the result."""

    @property
    def rewards(self) -> list[float]:
        """Of the finals that were not given up."""
        return [float(result.reward or 0.0) for _, result in self.long if result.complete]

    @property
    def mean(self) -> float:
        """Mean reward over the seeds; minus infinity where one was given up."""
        whole = len(self.rewards) == len(self.long)
        return statistics.fmean(self.rewards) if whole else float("-inf")

    @property
    def best_run(self) -> tuple[str, Result]:
        """The seed of the highest accuracy: where it is, and its result."""
        return max(self.long, key=lambda pair: pair[1].accuracy or 0.0)


def run_finals(
    search: Search,
    study: epath.Path,
    proposals: Sequence[Proposal],
    results: Sequence[Result],
    executor: Executor,
    *,
    report: Callable[[str], None],
) -> list[Finalist]:
    """Trains the best `search.finals` again, and returns them with the best first.

    Args:
      proposals: of the study.
      results: of its trials.

    Raises:
      StudyError: too many runs in a row failed.
    """
    complete = [result for result in results if result.complete]
    best = sorted(complete, key=lambda result: (-(result.reward or 0.0), result.number))
    chosen = best[: search.finals]
    runner = Runner(executor, max_failures=search.max_failures, report=report)
    for result in chosen:
        for directory, proposal in _runs(search, study, proposals[result.number]):
            if read_result(directory) is None:
                write_proposal(directory, proposal)
                runner.add(directory)
    while runner.busy:
        runner.start()
        for ended in runner.wait(_WAIT_SECONDS):
            told = f"top-1 {ended.accuracy:.2%}" if ended.complete else ended.reason
            report(f"final of trial {ended.number}: {told} | {ended.seconds:.0f} s")
    finalists = []
    for result in chosen:
        proposal = proposals[result.number]
        ended_runs = (
            (str(directory.relative_to(study)), read_result(directory))
            for directory, _ in _runs(search, study, proposal)
        )
        long = tuple((name, ended) for name, ended in ended_runs if ended is not None)
        finalists.append(Finalist(proposal, result, long))
    return sorted(finalists, key=lambda finalist: -finalist.mean)


def agreement(finalists: Sequence[Finalist]) -> float:
    """Kendall's tau between the rewards of the trials and the mean rewards of the finals."""
    whole = [finalist for finalist in finalists if len(finalist.rewards) == len(finalist.long)]
    return kendall([f.short.reward or 0.0 for f in whole], [f.mean for f in whole])


def table(finalists: Sequence[Finalist]) -> list[tuple[str, ...]]:
    """The finalists in rows, with titles first."""
    titles = ("trial", "reward in the search", "in the finals", "top-1", "by seed")
    rows: list[tuple[str, ...]] = [titles]
    for each in finalists:
        accuracies = [r.accuracy for _, r in each.long if r.accuracy is not None]
        rows.append(
            (
                str(each.proposal.number),
                f"{each.short.reward:.4f}",
                f"{each.mean:.4f}",
                f"{statistics.fmean(accuracies):.2%}" if accuracies else "-",
                ", ".join(f"{accuracy:.2%}" for accuracy in accuracies),
            )
        )
    return rows


def _runs(
    search: Search, study: epath.Path, proposal: Proposal
) -> Iterator[tuple[epath.Path, Proposal]]:
    """The finals of a trial: their directories, and what they are."""
    for index in range(search.finals_seeds):
        seed = search.experiment.seed + index
        epochs = search.experiment.epochs * search.finals_epochs
        directory = study / FINALS / f"{proposal.number:04d}_epochs{epochs:g}_seed{seed}"
        yield (
            directory,
            dataclasses.replace(proposal, settings={"epochs": epochs, "seed": seed}),
        )
