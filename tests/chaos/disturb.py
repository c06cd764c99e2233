"""Kills and preempts a run at chosen moments, starts it again, and checks what it lost."""

import dataclasses
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from processes import Processes

from chaos.runs import events, is_saving, last_metrics, launch, newest_checkpoint
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import open_source
from effnetv2_jax.train.loop import evaluation_is_due

Place = Literal["startup", "step", "checkpoint", "boundary", "evaluation"]
PLACES: tuple[Place, ...] = ("step", "checkpoint", "boundary", "startup", "evaluation")
GRACE = 30.0
"""Seconds in which a preempted run has to be saved and gone."""
PATIENCE = 5.0
"""Seconds after which a scheduler ends the processes that one that died has left behind."""
TIMEOUT = 300.0
_POLL = 0.002
_STARTUP = 5.0
"""Seconds to the first step, as long as none is known."""
_DELAY = 0.02
_SHARE = 0.9
"""Of the run, in which it is disturbed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disturbance:
    """A signal to some processes of a run, at the first occasion."""

    signal: signal.Signals
    aim: Place
    step: int
    """Steps that have to be done before; except in `startup`."""
    moment: float
    """In [0, 1): of 20 ms from the occasion; in `startup` of the time to the first step."""
    victims: tuple[int, ...] = (0,)
    """Which processes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """What a disturbance met with."""

    signal: str
    victims: tuple[int, ...]
    aim: Place
    place: Place
    """Where the run really was."""
    step: int
    """Last in the log at that moment."""
    statuses: list[int]
    """Of all processes; -9 of one that was killed."""
    seconds: float
    """From the signal to the end of the last process that ended by itself."""
    abandoned: int
    """Processes that outlived another and were killed in the end."""


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """A run that is complete in spite of it all."""

    hits: list[Hit]
    restarts: list[float]
    """Seconds from each launch to the first step in the log, where it came to one."""


def planned(
    experiment: Experiment, *, kills: int, terms: int, seed: int, processes: int = 1
) -> list[Disturbance]:
    """Draws disturbances of every kind, in the order in which the run comes to them.

    Args:
      processes: of the run; of several, one by one and all together are the victims in turn.
    """
    course, rng = _course(experiment), random.Random(seed)
    groups: list[tuple[int, ...]] = [(index,) for index in range(processes)]
    if processes > 1:
        groups.append(tuple(range(processes)))
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    drawn = []
    for index, number in enumerate(signals):
        count = index if number == signal.SIGKILL else index - kills
        aim = PLACES[count % len(PLACES)]
        step = rng.randrange(1, int(_SHARE * course.total_steps))
        if aim == "boundary":
            step = rng.choice(course.boundaries) + rng.randint(-1, 1)
        victims, moment = groups[count % len(groups)], rng.random()
        drawn.append(Disturbance(signal=number, aim=aim, step=step, moment=moment, victims=victims))
    return sorted(drawn, key=lambda disturbance: disturbance.step)


def disturb(
    experiment: Experiment,
    workdir: Path,
    disturbances: Sequence[Disturbance],
    *,
    processes: int = 1,
    variables: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = print,
) -> Disturbed:
    """Runs an experiment to its end, disturbed and started again.

    Raises:
      AssertionError: the run lost more than it may, did not end in time or with the right status,
        or broke a checkpoint.
    """
    course = _course(experiment)
    hits: list[Hit] = []
    restarts: list[float] = []
    for disturbance in (*disturbances, None):
        run = _Launched(experiment, course, workdir, processes, variables)
        try:
            startup = restarts[-1] if restarts else _STARTUP
            hit = None
            if disturbance is None:
                run.finish()
            else:
                hit = run.disturb(disturbance, startup)
        finally:
            run.started.kill()
        if run.restart is not None:
            restarts.append(run.restart)
        if hit is not None:
            hits.append(hit)
            tell(f"{hit.signal} in {hit.place} after step {hit.step}: {hit.seconds:.1f} s")
    assert not events(workdir, "fallback"), events(workdir, "fallback")
    return Disturbed(hits, restarts)


class _Launched:
    """One start of a run."""

    def __init__(
        self,
        experiment: Experiment,
        course: "_Course",
        workdir: Path,
        processes: int,
        variables: Mapping[str, str] | None,
    ) -> None:
        self._course, self._workdir = course, workdir
        self._checkpoint = newest_checkpoint(workdir)
        self._starts = len(events(workdir, "start"))
        self._continues_at: int | None = None
        self._since = time.monotonic()
        self.restart: float | None = None
        self.started: Processes = launch(
            experiment, workdir, processes=processes, variables=variables
        )

    def disturb(self, disturbance: Disturbance, startup: float) -> Hit | None:
        """Waits for the occasion and takes it; None if the run is complete before that."""
        if disturbance.aim == "startup":
            self._sleep(disturbance.moment * startup)
        else:
            self._wait_until(lambda: self._is_at(disturbance))
            self._sleep(disturbance.moment * _DELAY)
        if self.started.run():
            return self._signal(disturbance)
        self.finish()
        return None

    def finish(self) -> None:
        """Waits for the end of the run."""
        self._wait_until(lambda: False)
        statuses = [process.wait(TIMEOUT) for process in self.started.processes]
        assert set(statuses) == {0}, (statuses, *self.started.outputs())

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition, or the end of a process."""
        while self.started.run() and not (self._goes_on() and condition()):
            assert time.monotonic() - self._since < TIMEOUT, self.started.outputs()
            time.sleep(_POLL)
        self._goes_on()

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self._goes_on()

    def _goes_on(self) -> bool:
        """Whether this start has done a step; checks that it goes on where it should."""
        if self._continues_at is None:
            starts = events(self._workdir, "start")
            if len(starts) == self._starts:
                return False
            self._continues_at = starts[-1]["step"]
            assert self._continues_at == self._checkpoint, (starts[-1], self._checkpoint)
        if self.restart is None and last_metrics(self._workdir)["step"] > self._continues_at:
            self.restart = time.monotonic() - self._since
        return self.restart is not None

    def _is_at(self, disturbance: Disturbance) -> bool:
        """Whether the occasion has come, in a run that goes on."""
        if last_metrics(self._workdir)["step"] < disturbance.step:
            return False
        match disturbance.aim:
            case "checkpoint":
                return is_saving(self._workdir)
            case "evaluation":
                return self._evaluates()
            case _:
                return True

    def _evaluates(self) -> bool:
        last = last_metrics(self._workdir)
        return "train/loss" in last and last["step"] in self._course.evaluations

    def _place(self) -> Place:
        if not self._goes_on():
            return "startup"
        if self._evaluates():
            return "evaluation"
        step = last_metrics(self._workdir)["step"]
        if any(abs(step - boundary) <= 1 for boundary in self._course.boundaries):
            return "boundary"
        return "checkpoint" if is_saving(self._workdir) else "step"

    def _signal(self, disturbance: Disturbance) -> Hit:
        kill = disturbance.signal == signal.SIGKILL
        all_of_them = self.started.processes
        place, logged = self._place(), last_metrics(self._workdir)["step"]
        since = time.monotonic()
        for victim in disturbance.victims:
            all_of_them[victim].send_signal(disturbance.signal)
        if kill:
            for victim in disturbance.victims:
                all_of_them[victim].wait()
            # What the killed ones left does not change any more.
            place, logged = self._place(), last_metrics(self._workdir)["step"]
        seconds, abandoned = self._await_end(since)
        statuses = [process.wait() for process in all_of_them]
        if not kill:
            self._check_preempted(statuses, place, logged)
        return Hit(
            signal=disturbance.signal.name,
            victims=disturbance.victims,
            aim=disturbance.aim,
            place=place,
            step=logged,
            statuses=statuses,
            seconds=round(seconds, 3),
            abandoned=abandoned,
        )

    def _await_end(self, since: float) -> tuple[float, int]:
        """Seconds from `since` to the last end, and how many processes had to be killed."""
        ended: float | None = None
        while any(process.poll() is None for process in self.started.processes):
            now = time.monotonic()
            assert now - since < GRACE, ("not gone in time", *self.started.outputs())
            died = [p for p in self.started.processes if p.poll() not in (None, 0, 143)]
            if died and ended is None:
                ended = now
            if ended is not None and now - ended > PATIENCE:
                left = [p for p in self.started.processes if p.poll() is None]
                self.started.kill()
                return ended - since, len(left)
            time.sleep(_POLL)
        return time.monotonic() - since, 0

    def _check_preempted(self, statuses: list[int], place: Place, logged: int) -> None:
        outputs = self.started.outputs()
        if place == "startup" and -signal.SIGTERM in statuses:
            # Nobody listened yet, and there was nothing to save.
            return
        if set(statuses) == {0}:
            assert newest_checkpoint(self._workdir) == self._course.total_steps, outputs
            return
        assert set(statuses) == {143}, (statuses, *outputs)
        preempted = events(self._workdir)[-1]
        assert preempted["event"] == "preempted", preempted
        last = last_metrics(self._workdir)["step"]
        assert logged <= last <= preempted["step"] == newest_checkpoint(self._workdir), preempted


@dataclasses.dataclass(frozen=True)
class _Course:
    """What comes when in a run, in steps done."""

    total_steps: int
    boundaries: list[int]
    evaluations: set[int]


def _course(experiment: Experiment) -> _Course:
    num_examples = len(open_source(experiment.data, "train"))
    plan = experiment.plan(num_examples)
    return _Course(
        plan.total_steps,
        [planned.first_step for planned in plan.stages[1:]],
        {
            done
            for done in range(plan.total_steps + 1)
            if evaluation_is_due(experiment, plan, done, num_examples)
        },
    )


def summary(disturbed: Disturbed) -> dict[str, Any]:
    """Counts, times and every hit, as JSON values."""
    hits = disturbed.hits

    def spread(values: list[float]) -> dict[str, float]:
        values = sorted(values)
        return {
            "count": len(values),
            "median": round(values[len(values) // 2], 2),
            "max": round(values[-1], 2),
        }

    return {
        "hit": {
            name: {
                place: sum(hit.signal == name and hit.place == place for hit in hits)
                for place in PLACES
            }
            for name in ("SIGKILL", "SIGTERM")
        },
        "restart_seconds": spread(disturbed.restarts),
        "grace_seconds": spread([hit.seconds for hit in hits if hit.signal == "SIGTERM"]),
        "grace_allowed": GRACE,
        "hits": [dataclasses.asdict(hit) for hit in hits],
    }
