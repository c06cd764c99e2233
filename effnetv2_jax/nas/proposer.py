"""Asks the sampler what to try next: a study of Optuna's, in memory."""

import warnings
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.records import Proposal, Result
from effnetv2_jax.nas.samplers import distributions, make_sampler, quiet
from effnetv2_jax.nas.space import Label


def directions(search: Search) -> list[StudyDirection]:
    """Of Optuna, for `values`."""
    several = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    return several if search.objective == "pareto" else several[:1]


def values(search: Search, result: Result) -> list[float] | None:
    """What Optuna is told of a result; None of one that was given up."""
    if not result.complete:
        return None
    if search.objective == "pareto":
        objectives = (result.accuracy, result.step_time, result.relative_parameters)
        return [float(value) for value in objectives if value is not None]
    return [float(result.reward or 0.0)]


class Proposer:
    """Proposes trials in the order of their numbers, from the results that it was told."""

    def __init__(self, search: Search) -> None:
        quiet()
        self._search, self._space = search, distributions(search)
        with warnings.catch_warnings():  # Of what Optuna calls experimental.
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(
                directions=directions(search), sampler=make_sampler(search)
            )

    def restore(self, proposal: Proposal, result: Result | None) -> None:
        """Takes up a trial of an earlier start.

        Args:
          result: None where it is not to be known yet.
        """
        self._study.add_trial(
            create_trial(
                state=_state(result),
                params=dict(proposal.picks),
                distributions=dict(self._space),
                system_attrs=dict(proposal.attributes),
                values=values(self._search, result) if result else None,
            )
        )

    def ask(self, forced: dict[str, Label] | None = None) -> tuple[dict[str, Label], Any]:
        """The next trial's labels by choice, and the sampler's notes on it.

        Args:
          forced: to be taken in place of the sampler's.
        """
        if forced is not None:
            self._study.enqueue_trial(forced)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask(dict(self._space))
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        return dict(trial.params), dict(frozen.system_attrs)

    def tell(self, number: int, result: Result) -> None:
        """How a trial ended."""
        self._study.tell(number, values(self._search, result), _state(result))


def _state(result: Result | None) -> TrialState:
    if result is None:
        return TrialState.RUNNING
    return TrialState.COMPLETE if result.complete else TrialState.PRUNED
