"""A copy of a study as an Optuna SQLite file, which `optuna-dashboard` opens.

Nothing reads it here: it may be deleted, and is written anew.
"""

import datetime
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence

import optuna
from etils import epath
from optuna.trial import TrialState, create_trial

from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.proposer import directions, values
from effnetv2_jax.nas.records import Proposal, Result
from effnetv2_jax.nas.samplers import distributions, quiet
from effnetv2_jax.outputs.storage import is_local

FILE = "optuna.sqlite3"
_NAME = "search"


def write_copy(
    search: Search,
    study: epath.Path,
    proposals: Sequence[Proposal],
    result_of: Callable[[int], Result | None],
) -> None:
    """Adds to the file what ended since it was last written, in the order of the numbers.

    A remote study's file is made whole each time, and copied there.

    Raises:
      OSError, sqlalchemy.exc.SQLAlchemyError: it cannot be written.
    """
    if is_local(study):
        _append(search, pathlib.Path(study) / FILE, proposals, result_of)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / FILE
        _append(search, path, proposals, result_of)
        (study / FILE).write_bytes(path.read_bytes())


def _append(
    search: Search,
    path: pathlib.Path,
    proposals: Sequence[Proposal],
    result_of: Callable[[int], Result | None],
) -> None:
    quiet()
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        copy = optuna.create_study(
            study_name=_NAME, storage=storage, directions=directions(search), load_if_exists=True
        )
        space = distributions(search)
        there = len(copy.get_trials(deepcopy=False))
        now = datetime.datetime.now()
        for proposal in proposals[there:]:
            result = result_of(proposal.number)
            if result is None:
                return
            trial = create_trial(
                state=TrialState.COMPLETE if result.complete else TrialState.PRUNED,
                params=dict(proposal.picks),
                distributions=dict(space),
                user_attrs=_notes(proposal, result),
                values=values(search, result),
            )
            trial.datetime_start = now - datetime.timedelta(seconds=result.seconds)
            trial.datetime_complete = now
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy.add_trial(trial)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _notes(proposal: Proposal, result: Result) -> dict[str, object]:
    fields = ("accuracy", "step_time", "step_time_source", "parameters", "reason", "network")
    notes = {name: getattr(result, name) for name in fields}
    return {
        name: value
        for name, value in {**notes, "duplicate_of": proposal.duplicate_of}.items()
        if value not in (None, "")
    }
