"""Optuna's samplers, and ageing evolution as one of theirs, drawing by (seed, trial number) alone.

So a continued study proposes what an uninterrupted one would: nothing of a sampler has to survive.
"""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from effnetv2_jax.nas.config import Search

Distributions = dict[str, CategoricalDistribution]


def distributions(search: Search) -> Distributions:
    """The space in Optuna's words."""
    return {each.name: CategoricalDistribution(each.labels) for each in search.space}


def make_sampler(search: Search) -> BaseSampler:
    """The sampler of a search that is resolved."""
    space = distributions(search)
    match search.sampler:
        case "random":
            return Random(space, search.seed)
        case "evolution":
            return AgeingEvolution(space, search.seed, search.population, search.tournament)
        case "tpe":
            return Tpe(search.seed)
        case "nsga2":
            return Nsga2(search.seed, search.population)
    raise ValueError(f"the sampler {search.sampler!r} is not resolved")


class Random(BaseSampler):
    """Every choice by itself, each of its values as likely."""

    def __init__(self, space: Distributions, seed: int) -> None:
        self._space, self._seed = space, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All of the space."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The labels that a trial takes."""
        return self._draw(np.random.default_rng((self._seed, trial.number)))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never asked: all choices are drawn together."""
        raise KeyError(param_name)

    def _draw(self, generator: np.random.Generator) -> dict[str, Any]:
        return {
            name: each.choices[generator.integers(len(each.choices))]
            for name, each in self._space.items()
        }


class AgeingEvolution(Random):
    """The best of a random part of the newest population is changed in one choice (1802.01548).

    The population are the last trials that completed, in the order of their numbers.
    """

    def __init__(
        self, space: Distributions, seed: int, population: int = 32, tournament: int = 8
    ) -> None:
        super().__init__(space, seed)
        self._population, self._tournament = population, tournament

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A random candidate until the population is full, then a child of it."""
        generator = np.random.default_rng((self._seed, trial.number))
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        changeable = [name for name, each in self._space.items() if len(each.choices) > 1]
        if len(done) < self._population or not changeable:
            return self._draw(generator)
        living = done[-self._population :]
        places = generator.choice(self._population, self._tournament, replace=False)
        best = max((living[at] for at in places), key=lambda t: (t.value, -t.number))
        name = changeable[generator.integers(len(changeable))]
        others = [label for label in self._space[name].choices if label != best.params[name]]
        return {**best.params, name: others[generator.integers(len(others))]}


class Tpe(TPESampler):
    """Optuna's multivariate TPE, to which trials that run count as bad ones."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._own_seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draws anew from (seed, number)."""
        _reseed(self, self._own_seed, trial.number)
        super().before_trial(study, trial)


class Nsga2(NSGAIISampler):
    """Optuna's NSGA-II."""

    def __init__(self, seed: int, population: int) -> None:
        super().__init__(seed=seed, population_size=population)
        self._own_seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draws anew from (seed, number)."""
        _reseed(self, self._own_seed, trial.number)
        super().before_trial(study, trial)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents by the results there are: Optuna would keep those of its first look."""
        return self.select_parent(study, generation) if generation else []


def _reseed(sampler: Any, seed: int, number: int) -> None:
    sampler._rng.rng.seed([seed, number])
    sampler._random_sampler._rng.rng.seed([seed, number, 1])


def quiet() -> None:
    """Optuna logs every trial otherwise."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
