"""Searches whose trials are functions: no network, no training, milliseconds."""

import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import tiny
from etils import epath

from effnetv2_jax.nas import Search, choice
from effnetv2_jax.nas.executors import Ended
from effnetv2_jax.nas.records import Proposal, Result, read_proposal, write_result
from effnetv2_jax.nas.space import Picks, Space
from effnetv2_jax.nas.study import Study, open_study

TESTS = Path(__file__).parent
STUB = (sys.executable, str(TESTS / "stub_trial.py"))
"""A trial as a process, see there."""

SPACE: Space = tuple(
    each
    for stage in range(2)
    for each in (
        choice(
            (f"model.stages[{stage}].operator", f"model.stages[{stage}].se_ratio"),
            ("mbconv", 0.25),
            ("fused", 0.0),
        ),
        choice(f"model.stages[{stage}].kernel", 3, 5),
        choice(f"model.stages[{stage}].expand", 1, 4, 6),
        choice(f"model.stages[{stage}].repeats", 1, 2, 3),
    )
)
"""1,296 candidates."""


def search(space: Space = SPACE, **fields: object) -> Search:
    """A search around the smallest run."""
    return Search(experiment=tiny.experiment(), space=space, **fields)  # type: ignore[arg-type]


def value(picks: Picks) -> float:
    """A reward in [0, 1] that a sampler can climb, with some noise that is always the same."""
    known = {"fused": 1.0, "mbconv": 0.0}
    parts = [float(known.get(str(v), v if not isinstance(v, str) else 0)) for v in picks.values()]  # type: ignore[arg-type]
    noise = zlib.crc32(repr(sorted(picks.items())).encode()) % 1000 / 10_000
    return min(1.0, sum(parts) / 40 + noise)


def result(proposal: Proposal, reward: float | None = None) -> Result:
    """Of a trial that went well."""
    reached = value(proposal.picks) if reward is None else reward
    return Result(
        number=proposal.number,
        hash=proposal.hash,
        state="complete",
        accuracy=reached,
        step_time=1.0 + reached,
        parameters=1000,
        relative_parameters=1.0,
        reward=reached,
    )


def pruned(proposal: Proposal, reason: str = "not finite") -> Result:
    """Of a trial that was given up."""
    return Result(number=proposal.number, hash=proposal.hash, state="pruned", reason=reason)


class Killed(BaseException):
    """The end of a coordinator."""


class Inline:
    """Runs a function for a trial, and ends those that run in a random order.

    Args:
      score: the result of a proposal, or what went wrong.
      workers: trials at a time.
      seed: of the order.
      ends: after so many, the coordinator is killed.
    """

    def __init__(
        self,
        score: Callable[[Proposal], Result | str] = result,
        *,
        workers: int = 4,
        seed: int = 0,
        ends: int | None = None,
    ) -> None:
        self.workers = workers
        self.trained: list[int] = []
        self._score, self._random, self._left = score, random.Random(seed), ends
        self._running: list[str] = []

    def start(self, directory: str) -> None:
        assert len(self._running) < self.workers
        self._running.append(directory)

    def wait(self, seconds: float) -> list[Ended]:
        if not self._running:
            return []
        directory = self._running.pop(self._random.randrange(len(self._running)))
        if self._left == 0:
            raise Killed
        self._left = None if self._left is None else self._left - 1
        proposal = read_proposal(epath.Path(directory))
        self.trained.append(proposal.number)
        scored = self._score(proposal)
        if isinstance(scored, str):
            return [Ended(directory, scored)]
        write_result(epath.Path(directory), scored)
        return [Ended(directory, None)]

    def close(self) -> None:
        self._running = []


def run(
    searched: Search, path: epath.PathLike, executor: Inline, said: list[str] | None = None
) -> Study:
    """Runs or continues a search until it ends or its coordinator is killed."""
    study = epath.Path(path)
    opened = open_study(searched, study, workers=executor.workers)
    heard: list[str] = [] if said is None else said
    trials = Study(opened, study, executor, report=heard.append)
    try:
        for _ in trials.run():
            pass
    except Killed:
        pass
    return trials
