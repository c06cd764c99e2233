"""What a search is, as a frozen dataclass: every field, its meaning and its only default."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.space import Choice, Space

TPE_UP_TO = 150
"""Trials below which `sampler=auto` is TPE: in simulations on Accel-NASBench's measurements it was
ahead of ageing evolution at 100 trials and level with it at 200."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A whole search."""

    experiment: Experiment
    """A trial: short, and at reduced size. Its model is the reference that S and P are relative
    to."""
    space: Space
    """What is chosen; `effnetv2_jax.nas.space` makes the paper's."""
    trials: int = 100
    """How many different candidates are trained."""
    seed: int = 0
    """Of all that the sampler draws. The trials' own is that of the experiment."""
    sampler: Literal["auto", "random", "tpe", "nsga2", "evolution"] = "auto"
    """Optuna's random, multivariate TPE or NSGA-II; or ageing evolution. `auto`: TPE below 150
    trials, evolution from there on, NSGA-II for `objective=pareto`."""
    population: int = 32
    """Of `evolution` and `nsga2`."""
    tournament: int = 8
    """Of `evolution`: how many of the population compete for being changed."""
    lag: int | None = None
    """Trial n is proposed from the results of trials 0 to n - lag, whichever ends first, so that
    proposals do not depend on timing. At most so many trials run at a time. None takes 1 with one
    worker, and else twice the workers of the first start, so that a slow trial holds nobody up."""
    objective: Literal["reward", "pareto"] = "reward"
    """`reward`: A * S^w * P^v. `pareto`: A, S and P as three objectives; the best is still the one
    of the highest reward."""
    step_time_exponent: float = -0.07
    """w of the reward."""
    parameters_exponent: float = -0.05
    """v of the reward."""
    cost: Literal["none", "table", "measured", "compiled"] = "none"
    """Where S comes from: 1 for every network; a JSON file that has it by the network's hash; the
    time of a training step on the trial's device, in turn with the reference's; or the memory
    traffic of a step compiled for a TPU that need not be here."""
    cost_path: str = ""
    """`table`: the file."""
    cost_topology: str = "v5e:2x2"
    """`compiled`: a slice of v5e, v5p or v6e, of which one chip is compiled for."""
    cost_image_size: int | None = None
    """`compiled`: height and width in training, in pixels; None takes the trial's last stage's."""
    cost_batch_size: int = 128
    """`compiled`: examples of a step on a chip."""
    max_step_time: float | None = None
    """A candidate whose S is above is not trained."""
    max_seconds: float | None = None
    """A candidate whose training takes longer, since its last start, is given up."""
    executor: Literal["local", "ray"] = "local"
    """Who runs the trials: processes of this machine, or a Ray cluster."""
    workers: int | None = None
    """Trials at a time. None takes one for every `cores` of this machine, or 64 with Ray, which
    starts as many of them as the cluster has room for."""
    cores: int = 1
    """Of each trial."""
    gpus: float = 0.0
    """Of each trial, with Ray; on this machine a trial sees what the command sees."""
    resources: tuple[tuple[str, float], ...] = ()
    """Of each trial, with Ray: others, such as `(("TPU", 4),)`."""
    address: str = ""
    """Of the Ray cluster; empty for the one that this machine is part of, or else one of its
    own."""
    max_failures: int = 5
    """After so many trials in a row that failed, or that were given up, the search stops."""
    max_deaths: int = 10
    """A trial that was killed so often in a row without getting any further is given up."""
    keep_checkpoints: bool = False
    """Of every trial; otherwise of the best alone."""
    finals: int = 0
    """So many of the best are trained again, longer and with several seeds, to find the winner."""
    finals_epochs: float = 4.0
    """As a multiple of a trial's."""
    finals_seeds: int = 3
    """Of each finalist."""
    imports: tuple[str, ...] = ()
    """Modules that register families, which every trial imports."""

    MAY_DIFFER: ClassVar[tuple[str, ...]] = (
        "trials",
        "executor",
        "workers",
        "cores",
        "gpus",
        "resources",
        "address",
        "max_failures",
        "max_deaths",
        "keep_checkpoints",
        "finals",
        "finals_epochs",
        "finals_seeds",
        "imports",
    )
    """Fields that a later start of a study may state otherwise."""

    def resolved(self, workers: int) -> Self:
        """With the sampler and the lag stated that a first start with so many workers takes."""
        sampler = self.sampler
        if sampler == "auto" and self.objective == "pareto":
            sampler = "nsga2"
        elif sampler == "auto":
            sampler = "tpe" if self.trials < TPE_UP_TO else "evolution"
        lag = self.lag or (1 if workers == 1 else 2 * workers)
        return dataclasses.replace(self, sampler=sampler, lag=lag)

    def to_json(self) -> dict[str, Any]:
        """As nested dicts of JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
          ConfigError: a field is unknown or makes no sense.
        """
        try:
            space = tuple(
                Choice(tuple(each["fields"]), tuple(map(_frozen, each["values"])))
                for each in content["space"]
            )
            fields = {
                name: _frozen(value) for name, value in content.items() if name != "experiment"
            }
            experiment = from_config_dict(content["experiment"])
            return cls(**{**fields, "space": space, "experiment": experiment})
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"this is no search: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def check(search: Search) -> None:
    """Raises a ConfigError that names the field if a search makes no sense.

    Every value of every choice is tried, by itself, in the experiment.
    """
    if not search.space:
        raise ConfigError("search.space has no choices; state some, as in --choices.FIELD=1,2,3")
    names = [path for each in search.space for path in each.fields]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"search.space chooses {name} twice")
    counts = ("trials", "population", "tournament", "cores", "max_failures", "max_deaths")
    for name in (*counts, "cost_batch_size"):
        if getattr(search, name) < 1:
            raise ConfigError(f"search.{name} must be above 0, not {getattr(search, name)}")
    for name in ("lag", "workers", "max_step_time", "max_seconds", "cost_image_size"):
        value = getattr(search, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"search.{name} must be above 0, or None, not {value}")
    if search.seed < 0:
        raise ConfigError(f"search.seed must not be below 0, as {search.seed} is")
    if search.finals < 0 or search.finals_seeds < 1 or search.finals_epochs <= 0:
        raise ConfigError("search.finals, .finals_seeds and .finals_epochs must be above 0")
    if search.tournament > search.population:
        raise ConfigError(
            f"search.tournament is {search.tournament}, more than search.population, "
            f"{search.population}"
        )
    if search.sampler == "evolution" and search.objective == "pareto":
        raise ConfigError("search.sampler=evolution knows one objective; take nsga2 or tpe")
    if (search.cost == "table") != bool(search.cost_path):
        raise ConfigError("search.cost=table and search.cost_path=FILE belong together")
    for each in search.space:
        for label in each.labels:
            with_settings(search.experiment, each.settings(label))
