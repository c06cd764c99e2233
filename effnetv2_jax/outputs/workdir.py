"""A run's working directory: its config, classes and data, with which later starts agree."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from etils import epath

from effnetv2_jax.config.differences import differences
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.legacy import upgrade
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.outputs.storage import is_local, write_text
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.system.paths import local_path, scheme_of

_SCHEMES = ("gs", "s3", "az", "hf")
_CONFIG = "config.json"
_CLASSES = "classes.json"
_DATA = "data.json"
_PREPROCESSING = "preprocessing.json"
WINNER = "best.json"
"""Of a search's study: says which of its runs won, and what its network is."""


class WorkdirError(ValueError):
    """A working directory that this run cannot use; the message names it and says what to do."""


def workdir_path(text: epath.PathLike) -> epath.Path:
    """The path that somebody means: `~` and `file://` are understood, `gs://` and its like stay.

    Raises:
      WorkdirError: nothing here reads paths of that scheme.
    """
    path = local_path(os.fspath(text))
    scheme = scheme_of(path)
    if scheme and (scheme not in _SCHEMES or "://" not in path):
        raise WorkdirError(
            f"{path}: there is no reader for {scheme}://; a working directory is local, or one of "
            f"{', '.join(f'{known}://' for known in _SCHEMES)}"
        )
    return epath.Path(path)


@contextlib.contextmanager
def reaching(path: epath.PathLike) -> Iterator[None]:
    """Turns what is raised over a remote path that cannot be reached into a WorkdirError."""
    try:
        yield
    except (FileNotFoundError, ConfigError, WorkdirError):
        raise
    except Exception as error:
        text = os.fspath(path)
        if is_local(epath.Path(text)):
            raise
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        scheme = scheme_of(text)
        package = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}[scheme]
        raise WorkdirError(
            f"cannot reach {text}: {cause}. Paths of {scheme}:// need the package {package} and "
            "access to it; where TensorFlow is installed, EPATH_USE_TF=false goes without it"
        ) from error


def open_workdir(
    path: epath.PathLike,
    config: Mapping[str, Any],
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    data_fingerprint: str | None = None,
    write: bool = True,
) -> epath.Path:
    """Creates a run's working directory, or checks that the run in it is this one.

    The first start writes `config.json`, `classes.json`, `data.json` and `preprocessing.json`. The
    first three are never rewritten: they say how the run began, also when a later start changes a
    field that may differ.

    Args:
      path: the directory, local or `gs://`.
      config: the run's config as nested dicts of JSON values (tuples count as lists).
      class_names: the classes in the order of their labels.
      preprocessing: what the run's weights expect of pictures.
      data_fingerprint: `Source.fingerprint` of the training data; None does not ask for it.
      write: False only checks, as all processes of a run do except the first.

    Raises:
      WorkdirError: the directory holds a run with another config, other classes or other training
        data, or cannot be written to.
    """
    workdir = workdir_path(path)
    try:
        if write:
            workdir.mkdir(parents=True, exist_ok=True)
        check_workdir(workdir, config, class_names, data_fingerprint=data_fingerprint)
        if write:
            data = {} if data_fingerprint is None else {_DATA: {"train": data_fingerprint}}
            # The config comes last: with it the directory is taken.
            for name, content in {**data, _CLASSES: list(class_names), _CONFIG: config}.items():
                if not (workdir / name).exists():
                    write_text(workdir / name, _to_json(content))
            write_text(workdir / _PREPROCESSING, _to_json(dataclasses.asdict(preprocessing)))
    except OSError as error:
        raise _unusable(workdir, error) from error
    return workdir


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """The config the run in `workdir` was started with, in the words of this version.

    Raises:
      WorkdirError: there is none, or it is not the JSON of a config.
    """
    path = workdir_path(workdir) / _CONFIG
    try:
        return upgrade(_read(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{path} makes no sense: {error!r}") from error


def began_with(workdir: epath.PathLike, field: str) -> Any:
    """What a field of the config was when the run in `workdir` began; None where none began.

    Raises:
      WorkdirError: the config is not the JSON of one.
    """
    path = workdir_path(workdir)
    with reaching(path):
        exists = (path / _CONFIG).exists()
    return read_config(path).get(field) if exists else None


Checkpoint = int | Literal["last", "best"]
"""A checkpoint of a run: the step, or what is meant of all there are."""


class FoundRun(NamedTuple):
    """A run whose weights are meant."""

    workdir: epath.Path
    checkpoint: Checkpoint = "last"


def split_checkpoint(text: str) -> tuple[str, Checkpoint]:
    """The workdir and the checkpoint that `RUN@best`, `RUN@last`, `RUN@1234` or `RUN` names.

    What exists under the whole name is meant itself.
    """
    found = re.fullmatch(r"(.+)@(best|last|\d+)", text, re.DOTALL)
    if found is None or (not scheme_of(text) and os.path.exists(local_path(text))):
        return text, "last"
    which = found[2]
    return found[1], which if which in ("best", "last") else int(which)  # type: ignore[return-value]


def find_run(weights: str) -> FoundRun | None:
    """The run that a `config.init` or a `weights` argument names; None where it names none.

    Args:
      weights: `workdir:DIR`, `gs://DIR`, or the path of a working directory, each with `@best`,
        `@last` or `@STEP` behind it if not the newest checkpoint is meant; or the path of one of
        its checkpoints. A search's study on this machine stands for the run of its winner.

    Raises:
      WorkdirError: it is a study whose `best.json` makes no sense.
    """
    kind, _, rest = weights.partition(":")
    if kind == "workdir":
        path, checkpoint = split_checkpoint(rest)
        return FoundRun(winner_or_itself(workdir_path(path)), checkpoint)
    if kind in ("hub", "http", "https"):
        return None
    weights, checkpoint = split_checkpoint(weights)
    if kind != "file" and "://" in weights:
        return FoundRun(winner_or_itself(workdir_path(weights)), checkpoint)
    path = winner_or_itself(epath.Path(local_path(weights.removeprefix("file:"))))
    if (path / "checkpoints").is_dir():
        return FoundRun(path, checkpoint)
    if path.parent.name == "checkpoints" and path.name.isdigit() and path.is_dir():
        return FoundRun(path.parent.parent, int(path.name))
    return None


def read_winner(study: epath.PathLike) -> dict[str, Any] | None:
    """What `best.json` in a search's study says; None where there is none.

    Raises:
      WorkdirError: the file makes no sense.
    """
    path = epath.Path(study) / WINNER
    with reaching(path):
        if not path.exists():
            return None
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get("workdir"), str):
        raise WorkdirError(f"{path} makes no sense: it has to say what the winner's 'workdir' is")
    return content


def winner_or_itself(path: epath.Path) -> epath.Path:
    """The run of the winner where `path` is a search's study on this machine; else `path`.

    Raises:
      WorkdirError: it is a study whose `best.json` makes no sense.
    """
    winner = read_winner(path) if is_local(path) else None
    return path if winner is None else path / winner["workdir"]


def read_class_names(workdir: epath.PathLike) -> tuple[str, ...]:
    """The names of the classes of the run in `workdir`, in the order of their labels.

    Raises:
      WorkdirError: there are none, or the file is not JSON.
    """
    return tuple(_read(epath.Path(workdir) / _CLASSES))


def began_class_names(workdir: epath.PathLike) -> tuple[str, ...] | None:
    """The names of the classes that the run in `workdir` began with; None where no run began.

    Raises:
      WorkdirError: the file is not JSON, or cannot be read.
    """
    path = epath.Path(workdir) / _CLASSES
    try:
        return read_class_names(workdir) if path.exists() else None
    except OSError as error:
        raise _unusable(epath.Path(workdir), error) from error


def read_data_fingerprint(workdir: epath.PathLike) -> str | None:
    """What the training data of the run in `workdir` began with; None where it is not known.

    Raises:
      WorkdirError: the file makes no sense.
    """
    path = epath.Path(workdir) / _DATA
    if not path.exists():
        return None
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get("train"), str):
        raise WorkdirError(f"{path} makes no sense: it has to say what 'train' is")
    return content["train"]


def read_preprocessing(workdir: epath.PathLike) -> Preprocessing | None:
    """What the weights of the run in `workdir` expect of pictures; None where no run began.

    Raises:
      WorkdirError: the file makes no sense.
    """
    path = epath.Path(workdir) / _PREPROCESSING
    if not path.exists():
        return None
    try:
        return Preprocessing.from_json(_read(path))
    except (TypeError, AttributeError, ValueError) as error:
        raise WorkdirError(f"{path} makes no sense: {error}") from error


def check_workdir(
    path: epath.PathLike,
    config: Mapping[str, Any],
    class_names: Sequence[str],
    *,
    data_fingerprint: str | None = None,
) -> None:
    """Raises a WorkdirError if `path` holds another run: another config, other classes or data.

    Args:
      path, config, class_names, data_fingerprint: as for `open_workdir`.
    """
    workdir = workdir_path(path)
    try:
        with reaching(workdir):
            _check_config(workdir, config)
            _check_class_names(workdir, class_names)
            _check_data(workdir, data_fingerprint)
    except OSError as error:
        raise _unusable(workdir, error) from error


def _unusable(workdir: epath.Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"cannot use {workdir} as working directory: {error}; choose another --workdir"
    )


def _check_config(workdir: epath.Path, config: Mapping[str, Any]) -> None:
    if not (workdir / _CONFIG).exists():
        return
    began, now = _in_full(read_config(workdir)), _in_full(config)
    differing = differences(json.loads(_to_json(began)), json.loads(_to_json(now)))
    if differing:
        raise WorkdirError(
            f"{workdir} holds a run with another config; choose another --workdir or undo:\n  "
            + "\n  ".join(differing)
        )


def _in_full(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the defaults of fields that an earlier version lacked, or that are not stated."""
    with contextlib.suppress(ConfigError):  # What cannot be read differs anyway.
        return dataclasses.asdict(from_config_dict(config).settled())
    return config


def _check_class_names(workdir: epath.Path, class_names: Sequence[str]) -> None:
    if not (workdir / _CLASSES).exists():
        return
    old, new = read_class_names(workdir), tuple(class_names)
    if len(old) != len(new):
        difference = f"{len(old)} -> {len(new)} classes"
    else:
        changed = [f"class {i}: {a!r} -> {b!r}" for i, (a, b) in enumerate(zip(old, new)) if a != b]
        difference = "\n  ".join(changed[:3])
    if difference:
        raise WorkdirError(
            f"{workdir} holds a run with other classes; choose another --workdir or the data it "
            f"was trained on:\n  {difference}"
        )


def _check_data(workdir: epath.Path, fingerprint: str | None) -> None:
    if fingerprint is None or read_data_fingerprint(workdir) in (None, fingerprint):
        return
    raise WorkdirError(
        f"the training data changed since the run in {workdir} began: examples were added, removed "
        "or renamed, or this version finds more in a folder (docs/data.md). Restore them, or begin "
        "a new run from its weights in another --workdir, with "
        f"--config.init=workdir:{workdir}"
    )


def _to_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _read(path: epath.Path) -> Any:
    try:
        with reaching(path):
            text = path.read_text()
    except FileNotFoundError:
        raise WorkdirError(f"{path} is missing; is {path.parent} a run's --workdir?") from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise WorkdirError(f"{path} is not valid JSON: {error}") from error
