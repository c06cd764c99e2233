"""A training run from beginning to end."""

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.outputs.callbacks import Callback
from effnetv2_jax.outputs.parameters import params_sha256
from effnetv2_jax.outputs.predictions import Predictions
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.state_checksum import first_not_finite
from effnetv2_jax.parallel.preemption import Preempted
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.train.closing import closing
from effnetv2_jax.train.divergence import Divergence, DivergenceError, NotFinite, Spike
from effnetv2_jax.train.evaluate import HEADLINE, evaluate, summary, weights_of
from effnetv2_jax.train.run import Run, open_run
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.step import as_float32, step_values

SPIKES = 10
"""Spikes of the loss that one start of a run logs."""


class _RollBack(Exception):
    """Leaves the steps of a run, to return to its newest checkpoint."""


def train(
    experiment: Experiment,
    workdir: epath.PathLike,
    *,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    origin: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, float]:
    """Trains an experiment in `workdir`, or continues the run that is there.

    Args:
      experiment: what to train.
      workdir: where checkpoints and logs go; local or `gs://`.
      progress: shows how it goes; None shows it on standard error, in the first process.
      callbacks: are told how it goes, in the first process.
      origin: where the experiment is from, as JSON values for the start's event: `config_file`, and
        what differs from it, `changed`.

    Returns:
      The final evaluation, see `train.evaluate.evaluate`, and `top1` (or `map`), which is that of
      the averaged weights where there are any.

    Raises:
      ConfigError: the experiment does not fit the devices or the data.
      WeightsError: the weights in `experiment.init` cannot be had or do not fit.
      WorkdirError: the workdir belongs to another experiment, is in use or cannot be written to.
      DataError: the data is missing, or too much of it is unreadable.
      CheckpointError: none can be saved, or there are some and none can be continued from.
      DivergenceError: training diverged, and `experiment.faults` says to halt.
      Preempted: SIGTERM or SIGINT came; the state is saved, and the next start continues.
    """
    with open_run(experiment, workdir, progress, callbacks=callbacks, origin=origin) as run:
        if run.finished:
            run.progress.message(f"step {run.done} | {summary(run.result)}")
        while not run.finished:
            try:
                _train_on(run)
            except _RollBack:
                _roll_back(run)
            except Preempted as preempted:
                _save_at_last(run)
                run.log("preempted", f"{preempted} after step {run.done}")
                raise
        run.activity.now("saving", "the last checkpoint")
        run.checkpoints.wait()
        for line in closing(
            run.workdir,
            run.result,
            steps=run.done,
            best=run.best(),
            spent=run.activity.spent(),
            metric=HEADLINE[experiment.evaluation.metric],
            decay=experiment.ema_decay,
            reports=experiment.log.report,
        ):
            run.progress.message(line)
        return run.result


def _train_on(run: Run) -> None:
    """Trains from where the run stands to its end, unless something comes between."""
    experiment, plan, num_examples = run.experiment, run.plan, len(run.train_source)
    with contextlib.closing(run.batches()) as batches:
        while True:
            _evaluate_and_save(run)
            if run.finished:
                return

            run.activity.now("waiting for input", f"the input of step {run.done + 1}")
            with run.preemption.waiting():
                step, planned, batch = next(batches)
                if step == planned.first_step:
                    run.step_log.flush()  # Before a wait for the compilation.
                _announce(run, planned)
                train_step = run.programs.train_step(planned)

            run.activity.now("training", f"step {step + 1}")
            rate = learning_rate(experiment, plan, step, num_examples=num_examples)
            values = step_values(planned.stage, rate)
            run.state, metrics = train_step(run.state, batch, as_float32(values), run.key)
            run.done, run.result = step + 1, {}
            run.step_log.step(run.done, planned, values, metrics)
            _handle(run, run.losses.step(run.done, metrics))
            if run.done < plan.total_steps:
                run.preemption.check()


def _announce(run: Run, planned: PlannedStage) -> None:
    """Says that a stage's step is still to be compiled, before that is waited for."""
    what = f"compiling stage {planned.index + 1}/{len(run.plan.stages)}"
    run.activity.now("compiling", what)
    if not run.programs.is_ready(planned):
        about = run.programs.expected_seconds(planned)
        run.progress.message(f"{what} (about {round(about)} s, less if it was compiled before)")


def _evaluate_and_save(run: Run) -> None:
    """Does what is due after the steps done, and is not done already."""
    experiment = run.experiment
    evaluates = evaluation_is_due(experiment, run.plan, run.done, len(run.train_source))
    if not (evaluates or (run.done and run.done % experiment.checkpoint.every_steps == 0)):
        return
    _handle(run, run.losses.flush())
    predictions: list[Predictions] = []
    if evaluates and not run.result:
        run.step_log.flush()
        run.activity.now("compiling", "the compilation of the evaluation")
        final = run.done == run.plan.total_steps
        with run.preemption.waiting():
            eval_step = run.programs.eval_step()
            run.activity.now("evaluating", f"the evaluation after step {run.done}")
            began = time.perf_counter()
            result = evaluate(
                eval_step,
                weights_of(run.state),
                run.eval_source,
                experiment,
                run.model.preprocessing,
                run.mesh,
                run.workers,
                predictions=predictions,
            )
        run.evaluation_seconds = time.perf_counter() - began
        notes = {"params_sha256": params_sha256(run.state.params)} if final else {}
        run.writers.write(run.done, "eval", result, spent=run.activity.spent(), **notes)
        run.progress.message(f"step {run.done} | {summary(result)}")
        name = HEADLINE[experiment.evaluation.metric]
        run.result = result | {name: result.get(f"ema_{name}", result[f"raw_{name}"])}
        run.patience = run.patience.after(run.result)
        if run.finished and not final:
            run.log("stopped_early", run.ending())
    run.activity.now("saving", f"the checkpoint after step {run.done}")
    _check_state(run)
    run.save()
    if predictions:
        run.activity.now("writing the report", "the report")
        run.reporter.write(
            run.done, predictions[0], seconds_left=run.step_log.seconds_left(run.done)
        )
        run.step_log.restart_clock()


def _save_at_last(run: Run) -> None:
    """Saves a run that has to end, unless it diverged and its next start has to meet that."""
    with contextlib.suppress(DivergenceError, _RollBack):
        _handle(run, run.losses.flush())
        _check_state(run)
        run.save()
        run.checkpoints.wait()


def _handle(run: Run, found: Iterable[Divergence | NotFinite | Spike]) -> None:
    """Logs divergences and spikes of the loss, and does about the former what the config says.

    Raises:
      DivergenceError: the run has to end.
      _RollBack: the run has to be rolled back.
    """
    for event in found:
        if isinstance(event, Spike):
            run.spikes += 1
            if run.spikes <= SPIKES:
                run.log("loss_spike", str(event), examples=run.examples_of(event.done))
            continue
        run.divergences += 1
        run.log("diverged", str(event), examples=run.examples_of(event.done))
        policy, limit = run.experiment.faults.on_divergence, run.experiment.faults.max_divergences
        if policy == "halt" or (policy == "skip" and event.spoils):
            unskipped = ", which cannot be skipped" if policy == "skip" else ""
            policies = "roll_back" if event.spoils else "roll_back or =skip"
            raise DivergenceError(
                f"{event}{unskipped}. {_sound(run)}: start again with "
                f"--config.faults.on_divergence={policies}, or begin a new run with a lower "
                "config.optimizer.learning_rate or with config.optimizer.gradient_clip"
            )
        if run.divergences > limit:
            raise DivergenceError(
                f"{event}, after {limit} others (config.faults.max_divergences). Begin a new run "
                "with a lower config.optimizer.learning_rate or config.optimizer.gradient_clip"
            )
        if policy == "roll_back":
            raise _RollBack


def _sound(run: Run) -> str:
    newest = run.checkpoints.latest_step()
    if newest is None:
        return "There is no checkpoint yet, and the beginning is sound"
    return f"The newest checkpoint, of step {newest}, is sound"


def _check_state(run: Run) -> None:
    """Lets no state become a checkpoint that holds NaN or infinity, as statistics may.

    Raises:
      DivergenceError: the run has to end.
      _RollBack: the run has to be rolled back.
    """
    name = first_not_finite(run.state.to_dict())
    if name is not None:
        _handle(run, [NotFinite(run.done, name)])


def _roll_back(run: Run) -> None:
    """Returns to the newest checkpoint, from where on the examples come in another order."""
    diverged, tried = run.done, run.salts
    run.losses.forget()
    run.restore()
    # An order that diverged before there was a checkpoint to keep it in must not come again.
    salt = 1 + max((salt for _, salt in (*tried, *run.salts)), default=0)
    run.salts = (*(pair for pair in run.salts if pair[0] < run.done), (run.done, salt))
    run.writers.cut_back(run.done, evaluated=bool(run.result))
    run.step_log.restart()
    message = f"back from step {diverged} to step {run.done}, with another order of the examples"
    run.log_broken()
    run.log("rolled_back", message, diverged=diverged, salt=salt)


def evaluation_is_due(experiment: Experiment, plan: Plan, done: int, num_examples: int) -> bool:
    """Whether step `done - 1` completes another `evaluation.every_epochs`, or the run.

    Before the first step there is something to evaluate where a head was fitted.
    """
    if done == 0:
        return experiment.probe.views > 0
    if done == plan.total_steps:
        return True
    interval = experiment.evaluation.every_epochs * num_examples
    before, after = plan.examples_before(done - 1), plan.examples_before(done)
    return math.floor(after / interval) > math.floor(before / interval)
