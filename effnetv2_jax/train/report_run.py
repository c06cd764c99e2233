"""The report of a run that left none, or an older one: evaluates it, and writes the page."""

import dataclasses
from collections.abc import Callable

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.data import Unreadable, make_workers, open_sources
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.outputs.predictions import Predictions
from effnetv2_jax.outputs.workdir import read_config
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.train.balance import balance_of
from effnetv2_jax.train.doubts import doubts
from effnetv2_jax.train.evaluate import evaluate, make_eval_step
from effnetv2_jax.train.feed import TrainingData
from effnetv2_jax.train.reporter import Reporter
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.run_config import read_run
from effnetv2_jax.weights.runs import restore_variables


def report_run(workdir: epath.PathLike, say: Callable[[str], None]) -> None:
    """Evaluates the newest checkpoint of a run on its own data, and writes its report.

    Args:
      say: called with what is worth knowing.

    Raises:
      WeightsError: there is no run.
      CheckpointError: there is no checkpoint, or it is damaged.
      DataError: the data is missing.
    """
    run = read_run(workdir)
    try:
        experiment = from_config_dict(read_config(run.workdir))
    except ConfigError as error:
        raise WeightsError(f"{run.workdir}: {error}") from error
    train_source, eval_source = open_sources(experiment.data, began_with=run.class_names)
    model = family_of(run.model.name).build(
        run.model, num_classes=len(run.class_names), preprocessing=run.preprocessing
    )
    kinds = ("raw", "ema") if run.averaged else ("raw",)
    mesh = make_mesh()
    step, weights = restore_variables(run.workdir, model, kinds)
    say(f"evaluating the checkpoint of step {step:,} on {len(eval_source):,} pictures")
    eval_step = make_eval_step(
        model, mesh, loss=experiment.loss, metric=experiment.evaluation.metric
    )
    predictions: list[Predictions] = []
    with make_workers(experiment.data) as workers:
        evaluate(
            eval_step,
            weights,
            eval_source,
            experiment,
            model.preprocessing,
            mesh,
            workers,
            predictions=predictions,
        )
    plan = experiment.plan(len(train_source))
    data = TrainingData(
        source=train_source,
        config=experiment.data,
        preprocessing=model.preprocessing,
        plan=plan,
        seed=experiment.seed,
        unreadable=Unreadable(len(train_source), log=False),
        classes=balance_of(experiment, train_source).sampled,
    )
    always = dataclasses.replace(experiment.log, report=True)
    reporter = Reporter(
        dataclasses.replace(experiment, log=always),
        run.workdir,
        data,
        eval_source,
        notes=list(doubts(experiment, plan, len(train_source))),
        say=say,
    )
    reporter.write(step, predictions[0])
