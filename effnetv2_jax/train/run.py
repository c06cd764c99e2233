"""A run in its working directory, opened and ready to train: what `train.loop` works with."""

import contextlib
import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from effnetv2_jax.config.checks import check_batches, check_probe
from effnetv2_jax.config.derived import derivation, derive
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import (
    Source,
    Unreadable,
    Workers,
    example_keys,
    make_workers,
    open_sources,
)
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data
from effnetv2_jax.data.sources.labelled import LabelIndex
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.outputs.callbacks import Callback
from effnetv2_jax.outputs.checkpoints import Checkpoints, scored
from effnetv2_jax.outputs.lock import WorkdirLock, lock_workdir
from effnetv2_jax.outputs.parameters import parameter_table
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.run_record import run_record
from effnetv2_jax.outputs.storage import write_text
from effnetv2_jax.outputs.workdir import (
    WorkdirError,
    began_class_names,
    began_with,
    check_workdir,
    open_workdir,
    workdir_path,
)
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.parallel.agreement import all_or_none
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.parallel.preemption import Preemption
from effnetv2_jax.progressive import Plan
from effnetv2_jax.train.activity import Activity
from effnetv2_jax.train.balance import balance_of
from effnetv2_jax.train.compilation import Programs
from effnetv2_jax.train.costs import fitting_batch
from effnetv2_jax.train.divergence import LossWatch
from effnetv2_jax.train.doubts import doubts
from effnetv2_jax.train.early_stopping import Patience
from effnetv2_jax.train.feed import Feed, Salts, TrainingData, feed
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.train.longer import EPOCHS, plan_from
from effnetv2_jax.train.opening import describe_devices, describe_network, describe_plan
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.probe import with_fitted_head
from effnetv2_jax.train.reporter import Reporter
from effnetv2_jax.train.state import TrainState, abstract_state, create_state, key_of
from effnetv2_jax.train.step_log import StepLog
from effnetv2_jax.train.watchdog import Watchdog

_SALTS = "salts"
_PARAMETERS = "parameters.txt"
_PATIENCE = "patience"
_NAMED = 64
"""Examples of a batch that an event names."""


@dataclasses.dataclass(kw_only=True)
class Run:
    """What a run is made of, and where it stands."""

    experiment: Experiment
    workdir: epath.Path
    plan: Plan
    key: np.ndarray
    """What every random number of its steps follows from."""
    mesh: Mesh
    model: Model
    optimizer: optax.GradientTransformationExtraArgs
    variables: Mapping[str, Any] | None
    """To start from; None draws them."""
    train_source: Source
    eval_source: Source
    classes: LabelIndex | None
    """The training examples of every class, where these come equally often."""
    workers: Workers | None
    """Processes that decode; None where threads of this one do."""
    unreadable: Unreadable
    checkpoints: Checkpoints
    progress: Progress
    losses: LossWatch
    watchdog: Watchdog
    preemption: Preemption
    lock: WorkdirLock | None
    """Of the working directory; None in all processes but the first."""

    state: TrainState = dataclasses.field(init=False)
    done: int = dataclasses.field(init=False)
    """Steps done; known without waiting for the devices."""
    salts: Salts = dataclasses.field(init=False)
    """Which order the examples come in; kept in the checkpoints."""
    result: dict[str, float] = dataclasses.field(init=False)
    """The evaluation of the state; empty where there is none."""
    patience: Patience = dataclasses.field(init=False)
    """With evaluations that are no better; kept in the checkpoints."""
    broken: list[str] = dataclasses.field(default_factory=list)
    """What is wrong with checkpoints that were passed over."""
    evaluation_seconds: float = 0.0
    """That the last one took; 0 before there is one."""
    divergences: int = 0
    spikes: int = 0
    """Of both, how many since this start."""

    activity: Activity = dataclasses.field(init=False)
    reporter: Reporter = dataclasses.field(init=False)
    writers: Writers = dataclasses.field(init=False)
    step_log: StepLog = dataclasses.field(init=False)
    programs: Programs = dataclasses.field(init=False)

    @property
    def finished(self) -> bool:
        """Whether all that is to be trained is trained and evaluated."""
        return bool(self.result) and (
            self.done == self.plan.total_steps or self.patience.is_exhausted
        )

    def fit_head(self) -> None:
        """Replaces the head of the variables to start from, where the experiment says so."""
        if self.variables is not None and self.experiment.probe.views:
            self.activity.now("starting", "the features of the pictures")
            self.variables = with_fitted_head(
                self.experiment,
                self.model,
                self.variables,
                self.train_source,
                unreadable=self.unreadable,
                workers=self.workers,
                report=self.progress.message,
            )

    def restore(self) -> None:
        """Takes the state of the newest whole checkpoint, or that of the beginning.

        Raises:
          CheckpointError: there are checkpoints, and none of them is whole or fits.
          WorkdirError: it has more steps than the run.
        """
        parts = self.experiment, self.model, self.optimizer, self.mesh
        self.patience = Patience.of(self.experiment)
        if self.checkpoints.latest_step() is None:
            self.state = create_state(*parts, self.variables)
            self.done, self.salts, self.result = 0, (), {}
            return
        self.done, saved = self.checkpoints.restore_newest(
            abstract_state(*parts).to_dict(), report=self.broken.append
        )
        self.state = TrainState.from_dict(saved)
        extra = self.checkpoints.extra(self.done)
        if self.done > self.plan.total_steps:
            raise WorkdirError(
                f"{self.workdir} has done {self.done:,} steps, more than the "
                f"{self.plan.total_steps:,} of config.epochs={self.experiment.epochs:g}; it was "
                f"continued with --config.epochs={extra.get(EPOCHS)}"
            )
        self.salts = tuple((start, salt) for start, salt in extra.get(_SALTS, ()))
        self.result = self.checkpoints.metrics(self.done)
        self.patience = self.patience.restored(extra.get(_PATIENCE))

    def save(self) -> None:
        """Saves the state, its evaluation and the order of the examples, in the background.

        Raises:
          CheckpointError: it cannot be saved, or what was saved before could not.
          WorkdirError: another run has taken the working directory.
        """
        if self.lock is not None:
            self.lock.check()
        # A checkpoint that exists has all its metrics in the log.
        self.step_log.flush()
        self.writers.flush()
        self.checkpoints.save(
            self.done,
            self.state.to_dict(),
            metrics=self.result,
            extra={
                _SALTS: [list(pair) for pair in self.salts],
                EPOCHS: self.experiment.epochs,
                **({} if self.patience.limit is None else {_PATIENCE: self.patience.to_json()}),
            },
        )
        self.step_log.restart_clock()

    def best(self) -> str:
        """Names the best checkpoint that there is, and what it is best in."""
        step, by = self.checkpoints.best_step(), self.checkpoints.best_by()
        if step is None:
            return f"no checkpoint in {self.workdir} has an evaluation"
        name, value = scored(by, self.checkpoints.metrics(step))
        shown = f"{value:.4f}" if by.endswith("loss") else f"{value:.2%}"
        return f"best checkpoint: step {step}, {name} {shown}; {self.workdir}@best names it"

    def ending(self) -> str:
        """Why a finished run goes no further."""
        if self.done == self.plan.total_steps:
            return f"all {self.done} steps are done"
        return (
            f"stopped early after step {self.done:,} of {self.plan.total_steps:,}, since "
            f"{self.patience.limit} evaluations were no better than the best before them "
            "(config.early_stopping)"
        )

    def batches(self) -> Generator[Feed, None, None]:
        """Yields the steps from here to the end."""
        return feed(self.training_data(), self.mesh, start=self.done)

    def training_data(self) -> TrainingData:
        """What is trained on, in the order that holds now."""
        return TrainingData(
            source=self.train_source,
            config=self.experiment.data,
            preprocessing=self.model.preprocessing,
            plan=self.plan,
            seed=self.experiment.seed,
            salts=self.salts,
            unreadable=self.unreadable,
            workers=self.workers,
            classes=self.classes,
        )

    def examples_of(self, done: int) -> list[str]:
        """Names the examples that step `done` trained on, or 64 of them."""
        first = self.plan.examples_before(done - 1)
        count = min(self.plan.stage_at(done - 1).batch_size, _NAMED)
        order = self.training_data().order
        return example_keys(self.train_source, order, range(first, first + count))

    def seconds_besides(self, done: int) -> float:
        """What the rest of the run may take besides its steps: evaluations, and compilations.

        Those of later stages run beside the steps of the present one.
        """
        coming = [planned for planned in self.plan.stages if planned.first_step >= done]
        compilations = sum(self.programs.expected_seconds(planned) for planned in coming)
        examples = self.plan.examples_before(self.plan.total_steps)
        interval = self.experiment.evaluation.every_epochs * len(self.train_source)
        evaluations = math.ceil((examples - self.plan.examples_before(done)) / interval)
        return self.evaluation_seconds * evaluations + compilations

    def log_broken(self) -> None:
        """Logs the checkpoints that the last `restore` passed over."""
        while self.broken:
            self.log("fallback", self.broken.pop(0))

    def log(self, event: str, message: str, **fields: Any) -> None:
        """Logs an event, and shows it."""
        self.writers.event(event, step=self.done, message=message, **fields)
        self.progress.message(message)


def derived(
    experiment: Experiment, workdir: epath.PathLike, mesh: Mesh, source: Source
) -> Experiment:
    """The experiment with the batch and epochs that it leaves to the training set.

    A run that continues keeps the batch it began with, whatever fits into memory here.

    Args:
      source: of the training set.

    Raises:
      ConfigError: no batch fits, or the batch does not fit other fields.
    """
    batch_size = None
    if experiment.batch_size == 0:
        batch_size = began_with(workdir, "batch_size") or fitting_batch(
            experiment, mesh, num_examples=len(source), num_classes=len(source.class_names)
        )
    return derive(experiment, len(source), batch_size=batch_size)


@contextlib.contextmanager
def open_run(
    experiment: Experiment,
    path: epath.PathLike,
    progress: Progress | None,
    *,
    callbacks: Sequence[Callback] = (),
    origin: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Run]:
    """Opens the run in a directory, or begins one there; see `train.loop.train`."""
    path = workdir_path(path)
    mesh = make_mesh()
    first = jax.process_index() == 0
    given, progress = progress, progress or Progress()
    progress.enabled = progress.enabled and first
    progress.waiting("opening the data")
    train_source, eval_source = open_sources(experiment.data, began_with=began_class_names(path))
    balance = balance_of(experiment, train_source)
    classes, fingerprint = train_source.class_names, train_source.fingerprint
    stated = experiment
    experiment = derived(stated, path, mesh, train_source)
    check_batches(experiment, devices=mesh.size)
    check_probe(experiment)

    with contextlib.ExitStack() as stack:
        if given is None:  # Whoever gives one lets it tick.
            stack.enter_context(progress.ticking())
        began = began_with(path, "epochs")
        began = began if isinstance(began, int | float) else experiment.epochs
        config = dataclasses.asdict(dataclasses.replace(experiment, epochs=began).settled())
        check_workdir(path, config, classes, data_fingerprint=fingerprint)
        if experiment.epochs == began:
            plan = experiment.plan(len(train_source))
        else:
            plan = plan_from(experiment, path, began=began, num_examples=len(train_source))
        progress.waiting("reading the weights to start from" if experiment.init else "the model")
        model, variables = initial_model(experiment, classes, path)
        lock = None
        with all_or_none(WorkdirError, f"another process cannot use {path}"):
            if first:  # Weights that are not there leave no directory behind.
                lock = stack.enter_context(lock_workdir(path))
            workdir = open_workdir(
                path,
                config,
                classes,
                model.preprocessing,
                data_fingerprint=fingerprint,
                write=first,
            )
        optimizer = make_optimizer(experiment)
        run = Run(
            experiment=experiment,
            workdir=workdir,
            plan=plan,
            key=key_of(experiment.seed),
            mesh=mesh,
            model=model,
            optimizer=optimizer,
            variables=variables,
            train_source=train_source,
            eval_source=eval_source,
            classes=balance.sampled,
            workers=stack.enter_context(make_workers(experiment.data)),
            unreadable=Unreadable(experiment.data.max_unreadable),
            checkpoints=stack.enter_context(Checkpoints(workdir / "checkpoints", experiment.kept)),
            progress=progress,
            losses=LossWatch(experiment.faults.loss_spike),
            watchdog=Watchdog(experiment.faults.hang_seconds),
            preemption=Preemption(),
            lock=lock,
        )
        about = describe_data({TRAINING: train_source, EVALUATION: eval_source})
        run.progress.message("\n".join([*about, *balance.lines]))
        if derives := derivation(stated, experiment, len(train_source)):
            run.progress.message(derives)
        run.activity = Activity(run.watchdog.now, progress.waiting)
        run.fit_head()
        run.activity.now("starting", "the state to begin with")
        run.restore()
        if experiment.epochs != began:
            run.progress.message(
                f"{workdir} began with {began:g} epochs and goes on to {experiment.epochs:g}: its "
                f"last stage alone changes, to {plan.total_steps:,} steps in all"
            )
        if run.finished:
            run.progress.message(f"{workdir} is finished: {run.ending()}")
        elif run.done:
            run.progress.message(f"continuing {workdir} at step {run.done} of {plan.total_steps}")
        else:
            _introduce(run, write=first)
        run.writers = stack.enter_context(
            Writers(
                workdir,
                experiment.log,
                step=run.done,
                evaluated=bool(run.result),
                epoch_of=lambda done: plan.examples_before(done) / len(train_source),
                callbacks=callbacks,
                enabled=first,
            )
        )
        stack.enter_context(contextlib.closing(run.progress))
        said = list(doubts(experiment, plan, len(train_source)))
        if not run.finished:
            record = run_record(
                mesh,
                model=experiment.model,
                train_data=fingerprint,
                eval_data=eval_source.fingerprint,
            )
            balanced = {"balance": balance.lines} if balance.lines else {}
            run.writers.event("start", step=run.done, **record, **origin, **balanced)
            for doubt in said:
                run.progress.message(f"note: {doubt}")
        run.writers.begin(plan.total_steps)
        run.log_broken()
        run.step_log = StepLog(
            plan,
            run.writers,
            run.progress,
            every_steps=experiment.log.every_steps,
            besides=run.seconds_besides,
        )
        run.programs = stack.enter_context(
            contextlib.closing(
                Programs(
                    experiment,
                    model,
                    optimizer,
                    plan,
                    run.state,
                    mesh,
                    start=run.done,
                    class_weights=balance.weights,
                )
            )
        )
        run.reporter = Reporter(
            experiment,
            workdir,
            run.training_data(),
            eval_source,
            notes=said,
            say=run.progress.message,
            submit=run.programs.submit,
            enabled=first,
        )
        stack.enter_context(run.watchdog)
        stack.enter_context(run.preemption)
        yield run


def _introduce(run: Run, *, write: bool) -> None:
    """Says what a run that begins is, and leaves the table of its parameters in its directory."""
    progress, experiment = run.progress, run.experiment
    params = run.state.params
    path = run.workdir / _PARAMETERS
    table = parameter_table(params)
    if write:
        write_text(path, table + "\n")
    if experiment.log.parameters:
        progress.message(table)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    classes = len(run.train_source.class_names)
    progress.message(describe_devices(run.mesh))
    progress.message(describe_network(experiment, classes, count, str(path)))
    for line in describe_plan(run.plan, experiment.epochs, len(run.train_source)):
        progress.message(line)
