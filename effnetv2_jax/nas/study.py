"""The coordinator of a search: proposes trials, hands them to an executor, and reads their results.

All it knows is read from the study's `proposal.json` and `trial.json` files at every start.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from etils import epath

from effnetv2_jax.config.differences import differences
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.nas.architecture import digest
from effnetv2_jax.nas.candidate import candidate_hash
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.executors import Executor
from effnetv2_jax.nas.proposer import Proposer
from effnetv2_jax.nas.records import (
    SEARCH,
    Proposal,
    Result,
    StudyError,
    directory_of,
    read_json,
    read_trials,
    write_json,
    write_proposal,
)
from effnetv2_jax.nas.runner import Runner
from effnetv2_jax.nas.space import Label, Picks, sample
from effnetv2_jax.nas.trial import Unsuitable, candidate_of

_DUPLICATES = 20
"""Proposals in a row that are all duplicates, after which a new candidate is drawn at random."""
_DRAWS = 2000
"""For that; if none of them is new, the space is exhausted."""
_WAIT_SECONDS = 1.0


def open_study(search: Search, study: epath.Path, *, workers: int) -> Search:
    """Begins a study, or checks that the one that is there is of the same search.

    Returns:
      The search, with its sampler and lag as the first start resolved them.

    Raises:
      StudyError: there is another search.
    """
    path = study / SEARCH
    if not path.exists():
        if study.exists() and any(not each.name.startswith(".") for each in study.iterdir()):
            raise StudyError(f"{study} holds something else; choose another --workdir")
        study.mkdir(parents=True, exist_ok=True)
        resolved = search.resolved(workers)
        write_json(path, resolved.to_json())
        return resolved
    try:
        began = Search.from_json(read_json(path))
    except ConfigError as error:
        raise StudyError(f"{path}: {error}") from error
    takes = {
        field: getattr(began, field)
        for field, open_value in (("sampler", "auto"), ("lag", None))
        if getattr(search, field) == open_value
    }
    search = dataclasses.replace(search, **takes)
    if differing := _differences(began, search):
        raise StudyError(
            f"{study} holds another search; choose another --workdir or undo:\n  "
            + "\n  ".join(differing)
        )
    if search != began:
        write_json(path, search.to_json())
    return search


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a search stands."""

    done: int
    """Different candidates that have their result."""
    trials: int
    """Of so many in all."""
    running: int
    pruned: int
    best: Result | None


class Study:
    """A search under way.

    Args:
      search: resolved, see `open_study`.
      study: its directory.
      executor: runs the trials.
      report: is told of every result, and of what goes wrong, in a line.
    """

    def __init__(
        self,
        search: Search,
        study: epath.Path,
        executor: Executor,
        *,
        report: Callable[[str], None],
    ) -> None:
        self._search, self._path, self._report = search, study, report
        self.proposals, self.results = read_trials(study)
        self._hashes: dict[str, str] = {}
        """By what was chosen."""
        self._first: dict[str, int] = {}
        """The first trial of every candidate, by hash."""
        for proposal, key in zip(self.proposals, self._keys()):
            self._first.setdefault(key, proposal.number)
        self._duplicates = 0
        for proposal in self.proposals:
            self._count_duplicate(proposal)
        self._exhausted = False
        self._runner = Runner(
            executor, at_most=search.lag, max_failures=search.max_failures, report=report
        )
        for number in sorted(set(self._first.values()) - self.results.keys()):
            self._runner.add(directory_of(study, number))
        self._proposer: Proposer | None = None
        self._unwritten: Proposal | None = None
        """Asked for already, as the disk was full when it was to be written."""
        self._told = 0

    def run(self) -> Iterator[Standing]:
        """Trains until all trials have their results; yields where it stands, about every second.

        Raises:
          StudyError: too many trials in a row failed or were given up.
        """
        while True:
            self._check_pruned()
            self._runner.start()  # A free worker does not wait for what comes after.
            self._propose()
            self._runner.start()
            yield self.standing
            if not self._runner.busy and self._unwritten is None:
                return
            for result in self._runner.wait(_WAIT_SECONDS):
                self._take(result)

    @property
    def standing(self) -> Standing:
        """Where the search stands."""
        return Standing(
            done=len(self.results),
            trials=len(self._first) if self._exhausted else self._search.trials,
            running=self._runner.running,
            pruned=sum(not result.complete for result in self.results.values()),
            best=best_of(self.results.values()),
        )

    def result_of(self, number: int) -> Result | None:
        """A trial's result, or that of the one it duplicates; None where there is none yet."""
        original = self.proposals[number].duplicate_of
        return self.results.get(number if original is None else original)

    def _propose(self) -> None:
        """Proposes all that `lag` allows, which is more than run at a time."""
        while (proposal := self._next()) is not None:
            number = proposal.number
            try:
                write_proposal(directory_of(self._path, number), proposal)
            except OSError as error:
                self._runner.fail(f"the proposal of trial {number}: {error}")
                time.sleep(_WAIT_SECONDS)
                return
            self._unwritten = None
            self.proposals.append(proposal)
            if proposal.duplicate_of is None:
                self._first[proposal.hash] = number
                self._runner.add(directory_of(self._path, number))
            self._count_duplicate(proposal)

    def _next(self) -> Proposal | None:
        """The next proposal; None where it has to wait for results, or there is none any more."""
        if self._unwritten is not None:
            return self._unwritten
        if self._exhausted or len(self._first) >= self._search.trials:
            return None
        number = len(self.proposals)
        seen = max(0, number - (self._search.lag or 1) + 1)
        if any(self.result_of(earlier) is None for earlier in range(self._told, seen)):
            return None
        proposer = self._knowing(seen)
        forced: dict[str, Label] | None = None
        if self._duplicates >= _DUPLICATES:
            forced = self._unseen(number)
            if forced is None:
                self._exhausted = True
                return None
        picks, attributes = proposer.ask(forced)
        key = self._hash(picks)
        self._unwritten = Proposal(
            number=number,
            picks=picks,
            hash=key,
            seen=seen,
            duplicate_of=self._first.get(key),
            attributes=attributes,
        )
        return self._unwritten

    def _knowing(self, seen: int) -> Proposer:
        """The proposer, told of the first so many results."""
        if self._proposer is None:
            self._proposer = Proposer(self._search)
            for proposal in self.proposals:
                known = self.result_of(proposal.number) if proposal.number < seen else None
                self._proposer.restore(proposal, known)
            self._told = seen
        while self._told < seen:
            result = self.result_of(self._told)
            assert result is not None
            self._proposer.tell(self._told, result)
            self._told += 1
        return self._proposer

    def _unseen(self, number: int) -> dict[str, Label] | None:
        generator = np.random.default_rng((self._search.seed, number, 1))
        for _ in range(_DRAWS):
            picks = sample(self._search.space, generator)
            if self._hash(picks) not in self._first:
                return picks
        return None

    def _keys(self) -> Iterator[str]:
        """The hashes of the proposals; anew where this version's differ, as it has other fields."""
        began = self.proposals[:1]
        same = all(self._hash(proposal.picks) == proposal.hash for proposal in began)
        for proposal in self.proposals:
            yield proposal.hash if same else self._hash(proposal.picks)

    def _hash(self, picks: Picks) -> str:
        key = repr(sorted(picks.items()))
        if key not in self._hashes:
            bare = Proposal(number=0, picks=picks, hash="", seen=0)
            try:
                self._hashes[key] = candidate_hash(candidate_of(self._search, bare))
            except Unsuitable:  # It is given up when it is tried.
                self._hashes[key] = digest(key)
        return self._hashes[key]

    def _count_duplicate(self, proposal: Proposal) -> None:
        self._duplicates = 0 if proposal.duplicate_of is None else self._duplicates + 1

    def _take(self, result: Result) -> None:
        before = best_of(self.results.values())
        self.results[result.number] = result
        self._report(line_of(result))
        best = best_of(self.results.values())
        if not self._search.keep_checkpoints:
            for other in (before, result):
                if other is not None and (best is None or other.number != best.number):
                    self._drop_checkpoints(other.number)

    def _drop_checkpoints(self, number: int) -> None:
        with contextlib.suppress(OSError):
            (directory_of(self._path, number) / "checkpoints").rmtree(missing_ok=True)

    def _check_pruned(self) -> None:
        """Raises a StudyError if the newest results are all of candidates that were given up."""
        newest = sorted(self.results)[-self._search.max_failures :]
        reasons = [self.results[number].reason for number in newest]
        if len(reasons) < self._search.max_failures or not all(reasons):
            return
        raise StudyError(
            f"the last {len(reasons)} trials were all given up (search.max_failures):\n  "
            + "\n  ".join(f"trial {number}: {reason}" for number, reason in zip(newest, reasons))
        )


def best_of(results: Iterable[Result]) -> Result | None:
    """The result of the highest reward, of equals the first; None where there is none."""
    complete = [result for result in results if result.complete]
    return max(complete, key=lambda r: (r.reward or 0.0, -r.number), default=None)


def line_of(result: Result) -> str:
    """A result in a line."""
    if not result.complete:
        return f"trial {result.number} given up: {result.reason}"
    return (
        f"trial {result.number}: reward {result.reward:.4f} | top-1 {result.accuracy:.2%}"
        f" | step time {result.step_time:.3g} | {(result.parameters or 0) / 1e6:.3g} M parameters"
        f" | {result.seconds:.0f} s"
    )


def _differences(began: Search, now: Search) -> list[str]:
    old, new = (json.loads(json.dumps(search.to_json())) for search in (began, now))
    for field in Search.MAY_DIFFER:
        del old[field], new[field]
    experiments = old.pop("experiment"), new.pop("experiment")
    return [
        *(f"search.{each}" for each in differences(old, new)),
        *(f"config.{each}" for each in differences(*experiments)),
    ]
