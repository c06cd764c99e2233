"""A training run from beginning to end."""

import contextlib
import dataclasses
import math

import jax
from etils import epath

from effnetv2_jax.data import Unreadable, open_source
from effnetv2_jax.evaluate import evaluate, make_eval_step, summary, weights_of
from effnetv2_jax.experiment import Experiment, check_batches
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.parameters import parameter_table, params_sha256
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.workdir import check_workdir, open_workdir
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.progressive import Plan
from effnetv2_jax.train.compilation import StageSteps
from effnetv2_jax.train.feed import feed
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.train.optimizer import learning_rate, make_optimizer
from effnetv2_jax.train.report import Report
from effnetv2_jax.train.state import abstract_state, create_state
from effnetv2_jax.train.step import make_train_step, step_settings


def train(
    experiment: Experiment, workdir: epath.PathLike, *, progress: Progress | None = None
) -> dict[str, float]:
    """Trains an experiment in `workdir`, or continues the run that is there.

    Args:
      experiment: what to train.
      workdir: where checkpoints and logs go; local or `gs://`.
      progress: shows how it goes; None shows it on standard error, in the first process.

    Returns:
      The final evaluation: see `effnetv2_jax.evaluate.evaluate`, and `top1`, which is that of the
      averaged weights where there are any.

    Raises:
      ConfigError: the experiment does not fit the devices or the data.
      WeightsError: the weights in `experiment.init` cannot be had or do not fit.
      WorkdirError: the workdir belongs to another experiment.
      DataError: the data is missing, or too much of it is unreadable.
    """
    mesh = make_mesh()
    first = jax.process_index() == 0
    progress = Progress(enabled=first) if progress is None else progress

    train_source = open_source(experiment.data, "train")
    eval_source = open_source(experiment.data, "eval")
    num_examples = len(train_source)
    plan = experiment.plan(num_examples)
    check_batches(experiment, devices=mesh.size)

    classes = train_source.class_names
    config = dataclasses.asdict(experiment)
    check_workdir(workdir, config, classes)  # Before weights are fetched.
    model, variables = initial_model(experiment, classes, workdir)
    workdir = open_workdir(workdir, config, classes, model.preprocessing, write=first)
    optimizer = make_optimizer(experiment.optimizer)
    train_step = make_train_step(experiment, model, optimizer, mesh)
    eval_step = make_eval_step(model, mesh, loss=experiment.loss)

    with Checkpoints(workdir / "checkpoints", experiment.checkpoint) as checkpoints:
        if checkpoints.latest_step() is None:
            state = create_state(experiment, model, optimizer, mesh, variables)
            progress.message(parameter_table(state.params))
        else:
            state = checkpoints.restore(abstract_state(experiment, model, optimizer, mesh))
            progress.message(f"continuing {workdir} at step {state.step} of {plan.total_steps}")
        start = int(state.step)
        if start == plan.total_steps:
            return checkpoints.metrics()

        unreadable = Unreadable(experiment.data.max_unreadable)
        steps = feed(
            experiment,
            plan,
            train_source,
            mesh,
            preprocessing=model.preprocessing,
            start=start,
            unreadable=unreadable,
        )
        stage_steps = StageSteps(
            train_step, plan, state, mesh, start=start, max_labels=experiment.data.max_labels
        )
        with (
            Writers(workdir, experiment.log, step=start, enabled=first) as writers,
            contextlib.closing(progress),
            contextlib.closing(stage_steps),
        ):
            report = Report(plan, writers, progress, every_steps=experiment.log.every_steps)
            for step, planned, batch in steps:
                if step == planned.first_step:
                    report.flush()  # Before a wait for the compilation.
                rate = learning_rate(experiment, plan, step, num_examples=num_examples)
                settings = step_settings(planned.stage, rate)
                state, metrics = stage_steps[planned](state, batch, settings)
                done = step + 1
                report.step(done, planned, rate, metrics)

                final = done == plan.total_steps
                result: dict[str, float] = {}
                if final or evaluation_is_due(experiment, plan, done, num_examples):
                    report.flush()
                    weights = weights_of(state)
                    result = evaluate(
                        eval_step, weights, eval_source, experiment, model.preprocessing, mesh
                    )
                    notes = {"params_sha256": params_sha256(state.params)} if final else {}
                    writers.write(done, "eval", result, **notes)
                    progress.message(f"step {done} | {summary(result)}")
                    result["top1"] = result.get("ema_top1", result["raw_top1"])
                if result or done % experiment.checkpoint.every_steps == 0:
                    # A checkpoint that exists has all its metrics in the log.
                    report.flush()
                    writers.flush()
                    checkpoints.save(done, state, metrics=result, force=True)
                    report.restart_clock()
    return result


def evaluation_is_due(experiment: Experiment, plan: Plan, done: int, num_examples: int) -> bool:
    """Whether step `done - 1` completes another `evaluation.every_epochs`."""
    interval = experiment.evaluation.every_epochs * num_examples
    before, after = plan.examples_before(done - 1), plan.examples_before(done)
    return math.floor(after / interval) > math.floor(before / interval)
