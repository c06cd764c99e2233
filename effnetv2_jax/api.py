"""Training, evaluating and classifying from Python, as the commands do it.

    import effnetv2_jax

    run = effnetv2_jax.train("configs/finetune.py:lite", "runs/mine", {"data.path": "PICTURES"})
    effnetv2_jax.evaluate("runs/mine@best")
    for prediction in effnetv2_jax.predict("runs/mine", ["cat.jpg", "PICTURES/"]):
        print(prediction.path, prediction.guesses[0].name)

`effnetv2_jax.train` and `effnetv2_jax.predict` are also a package and a module, which can be
called; `from effnetv2_jax.api import train` is the function alone.
"""

import copy
import dataclasses
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.outputs.callbacks import Callback

if TYPE_CHECKING:
    import ml_collections

    from effnetv2_jax.outputs.progress import Progress
    from effnetv2_jax.predict import Prediction

_log = logging.getLogger(__name__)

Overrides = Mapping[str, Any]
"""Fields of a config by their path, such as `{"epochs": 5, "stages[0].image_size": 96}`."""


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run after `train`."""

    workdir: str
    """Weights, for `load_pretrained(None, workdir)`, `evaluate` and `predict`."""
    step: int
    """Steps done."""
    total_steps: int
    finished: bool
    """False after Ctrl-C: the same call continues."""
    evaluation: dict[str, float]
    """At the end, as `effnetv2_jax.train.loop.train` returns it; empty where it is not finished."""


def train(
    experiment: "Experiment | ml_collections.ConfigDict | str | os.PathLike[str]",
    workdir: str | os.PathLike[str],
    overrides: Overrides | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    progress: "Progress | None" = None,
) -> TrainedRun:
    """Trains in a working directory, or continues the run that is there.

    Ctrl-C, in a notebook "interrupt", saves the run and returns. The same call then goes on, with
    the bits that it would have had.

    Args:
      experiment: what to train, or a config file as `--config` takes it, such as
        `configs/folder.py:small`.
      workdir: where checkpoints and logs go.
      overrides: of the experiment's fields, as `--config.FIELD=VALUE`.
      callbacks: are told how it goes, such as `effnetv2_jax.LivePlot()`.
      progress: shows how it goes; None shows it on standard error.

    Raises:
      CommandError: there is no such config file, or no such field.
      ConfigError, WeightsError, WorkdirError, DataError, CheckpointError, DivergenceError: as
        `effnetv2_jax.train.loop.train`.
    """
    # Imported late, since JAX takes seconds.
    from effnetv2_jax.outputs.checkpoints import Checkpoints
    from effnetv2_jax.outputs.workdir import workdir_path
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.preemption import Preempted
    from effnetv2_jax.train.loop import train as train_run

    path = workdir_path(workdir)
    where = os.fspath(path)
    stated = _experiment(experiment, overrides, where)
    startup.start(stated.distributed)
    total, finished = _TotalSteps(), True
    try:
        evaluation = train_run(stated, where, progress=progress, callbacks=(total, *callbacks))
    except Preempted:
        finished, evaluation = False, {}
    with Checkpoints(path / "checkpoints", None) as checkpoints:
        step = checkpoints.latest_step() or 0
    return TrainedRun(where, step, total.steps, finished, evaluation)


def evaluate(
    run: str | os.PathLike[str], overrides: Overrides | None = None
) -> dict[str, dict[str, float]]:
    """Evaluates a run on the data it was trained for, or on other data.

    Args:
      run: its working directory, with `@best`, `@last` or `@STEP` behind it if not the newest
        checkpoint is meant.
      overrides: of the run's config, such as `{"data.path": "OTHER", "data.eval_split": "all"}`.

    Returns:
      By the name of the set, what `effnetv2_jax.train.evaluate.evaluate` returns, and the `step`.

    Raises:
      CommandError, ConfigError, WeightsError, CheckpointError, DataError: as
        `effnetv2_jax.train.evaluate_weights.evaluate_run`.
    """
    from effnetv2_jax.cli.command_line import parse
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.train.evaluate_weights import evaluate_run

    words = ["effnetv2_jax", "--mode=eval", f"--workdir={os.fspath(run)}", *_flags(overrides)]
    command: Any = parse(words)
    startup.start(command.experiment.distributed)
    return evaluate_run(command.experiment, command.workdir, checkpoint=command.checkpoint)


def predict(
    weights: Any,
    pictures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    model: str | None = None,
    top: int = 5,
    threshold: float | None = None,
    batch_size: int = 32,
) -> "Generator[Prediction, None, None]":
    """Classifies pictures.

    Args:
      weights, model: as `load_pretrained(model, weights)` takes them: a run, a tag, a file.
      pictures: files, URLs, and folders of files.
      top: guesses for each picture.
      threshold: for several labels: all classes that are as likely, each by itself, in place of
        the `top`; None is 0.5 for the weights of a run that measures average precision.
      batch_size: pictures per step.

    Yields:
      A prediction for each picture, in their order; folders' are sorted.

    Raises:
      WeightsError: the weights cannot be had, or have no classifier.
      DataError: there is no such picture.
    """
    from effnetv2_jax.data.sources.unlabelled import list_pictures
    from effnetv2_jax.predict import predict as predict_paths
    from effnetv2_jax.predict import threshold_of
    from effnetv2_jax.weights.pretrained import load_pretrained

    named = [pictures] if isinstance(pictures, str | os.PathLike) else pictures
    paths = list_pictures([os.fspath(path) for path in named])
    loaded, variables = load_pretrained(model, weights)
    if threshold is None and isinstance(weights, str | os.PathLike):
        threshold = threshold_of(os.fspath(weights))
    yield from predict_paths(
        loaded, variables, paths, top=top, threshold=threshold, batch_size=batch_size
    )


class _TotalSteps(Callback):
    """Of a run, once it has started."""

    steps = 0

    def on_start(self, step: int, total_steps: int) -> None:
        self.steps = total_steps


def _experiment(
    stated: "Experiment | ml_collections.ConfigDict | str | os.PathLike[str]",
    overrides: Overrides | None,
    workdir: str,
) -> Experiment:
    from effnetv2_jax.cli.command_line import parse
    from effnetv2_jax.cli.overrides import adapt, assign, read_overrides
    from effnetv2_jax.config.reading import from_config_dict, to_config_dict

    flags = _flags(overrides)
    if isinstance(stated, str | os.PathLike):
        file = f"--config={os.fspath(stated)}"
        command: Any = parse(["effnetv2_jax", file, f"--workdir={workdir}", *flags])
        notes, experiment = command.notes, command.experiment
    else:
        own = to_config_dict(stated) if isinstance(stated, Experiment) else stated
        config = copy.deepcopy(own)  # Overrides reach into it.
        given = read_overrides(flags)
        notes = tuple(adapt(config, given, shortened=False))
        assign(config, given)
        experiment = from_config_dict(config)
    for note in notes:
        _log.warning("%s", note)
    return experiment


def _flags(overrides: Overrides | None) -> list[str]:
    return [f"--config.{field}={value}" for field, value in (overrides or {}).items()]
