"""What a study keeps of its trials: `proposal.json` before one runs, `trial.json` when it ended.

STUDY/search.json              the search, as its first start resolved it
STUDY/trials/0007/proposal.json, trial.json, and all that a run has
STUDY/finals/0007_seed1/       likewise, of the finals
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from effnetv2_jax.nas.space import Label
from effnetv2_jax.outputs.storage import write_text

SEARCH = "search.json"
TRIALS = "trials"
FINALS = "finals"
_PROPOSAL = "proposal.json"
_TRIAL = "trial.json"


class StudyError(ValueError):
    """A study that cannot go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a trial is to be."""

    number: int
    picks: Mapping[str, Label]
    """Of every choice of the space, the value's label."""
    hash: str
    """See `candidate.candidate_hash`."""
    seen: int
    """It was proposed from the results of trials 0 to `seen` - 1."""
    duplicate_of: int | None = None
    """The earlier trial that is the same; this one is then not trained."""
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The sampler's own."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the config that it has besides, as those of the finals do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended."""

    number: int
    hash: str
    state: Literal["complete", "pruned"]
    reason: str = ""
    """Why it was given up."""
    accuracy: float | None = None
    """Top-1 of its evaluation, in [0, 1]."""
    step_time: float | None = None
    """S, relative to the reference."""
    step_time_source: str = ""
    parameters: int | None = None
    relative_parameters: float | None = None
    """P, relative to the reference."""
    reward: float | None = None
    network: str = ""
    """`architecture.network_hash`, by which tables have S."""
    params_sha256: str = ""
    """Of the trained parameters."""
    seconds: float = 0.0
    """From the trial's last start to its end."""

    @property
    def complete(self) -> bool:
        """Whether it has a reward."""
        return self.state == "complete"


def directory_of(study: epath.Path, number: int) -> epath.Path:
    """Where a trial is."""
    return study / TRIALS / f"{number:04d}"


def write_json(path: epath.Path, content: Any) -> None:
    """Writes a whole file, indented; a reader sees the old file or the new one."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: epath.Path) -> Any:
    """The content of a file.

    Raises:
      FileNotFoundError: there is none.
      StudyError: it is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StudyError(
            f"{path} is not valid JSON ({error}); delete it, and what it says is made again"
        ) from error


def write_proposal(directory: epath.Path, proposal: Proposal) -> None:
    """Creates a trial's directory, with what the trial is to be."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / _PROPOSAL, dataclasses.asdict(proposal))


def read_proposal(directory: epath.Path) -> Proposal:
    """What the trial in a directory is to be.

    Raises:
      StudyError: nothing there says so.
    """
    try:
        return Proposal(**read_json(directory / _PROPOSAL))
    except FileNotFoundError:
        raise StudyError(f"{directory} is no trial: it has no {_PROPOSAL}") from None
    except TypeError as error:
        raise StudyError(f"{directory / _PROPOSAL} makes no sense: {error}") from error


def write_result(directory: epath.Path, result: Result) -> None:
    """Ends a trial, all at once."""
    write_json(directory / _TRIAL, dataclasses.asdict(result))


def read_result(directory: epath.Path) -> Result | None:
    """How the trial in a directory ended; None where it did not yet.

    Raises:
      StudyError: the file makes no sense.
    """
    path = directory / _TRIAL
    try:
        result = Result(**read_json(path))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise StudyError(f"{path} makes no sense: {error}") from error
    if result.complete and (result.reward is None or not math.isfinite(result.reward)):
        raise StudyError(f"{path} makes no sense: a complete trial has a reward")
    return result


def read_trials(study: epath.Path) -> tuple[list[Proposal], dict[int, Result]]:
    """All proposals of a study, in order, and the results by number; duplicates have none.

    Raises:
      StudyError: one is missing in between, or makes no sense.
    """
    folder = study / TRIALS
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    directories = [folder / name for name in names if (folder / name / _PROPOSAL).exists()]
    proposals = sorted(map(read_proposal, directories), key=lambda proposal: proposal.number)
    for number, proposal in enumerate(proposals):
        if proposal.number != number:
            raise StudyError(
                f"{directory_of(study, number)} is missing, though later trials are there; "
                "restore it, or begin another study"
            )
    results = {}
    for proposal in proposals:
        if proposal.duplicate_of is None:
            result = read_result(directory_of(study, proposal.number))
            if result is not None:
                results[proposal.number] = result
    return proposals, results
