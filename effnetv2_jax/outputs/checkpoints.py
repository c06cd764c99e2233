"""Checkpoints of a training run: the only file of the package that imports Orbax.

A checkpoint holds the state's arrays under names (`params`, `stem`, `kernel`, ...) instead of
under the Python types that held them, so it can be read in part, by other code, and after an
optimizer's containers have changed their types.
"""

import contextlib
import functools
import itertools
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from effnetv2_jax.config.experiment import CheckpointConfig
from effnetv2_jax.outputs.errors import CheckpointError as CheckpointError
from effnetv2_jax.outputs.state_checksum import first_not_finite, named_leaves, state_checksum
from effnetv2_jax.outputs.storage import is_local, move_directory, write_text
from effnetv2_jax.outputs.workdir import Checkpoint
from effnetv2_jax.parallel.agreement import all_or_none, all_true, of_first_process
from effnetv2_jax.system.read_errors import is_passing

Tree = TypeVar("Tree")

_STATE, _EXTRA = "state", "extra"
_CHECKSUMS = "_checksums"
"""Where among the extras the checksums are; checkpoints of old lack them."""
_BEST_BY = "_best_by"
"""Likewise what the best are chosen by; those of old have `top1`."""
_EVALUATION = "evaluation.json"
"""In a checkpoint's directory, the evaluation of one that was saved without."""
_LISTED = 5
_MOST = 1000
"""Checkpoints that are looked at, the newest."""


class BrokenCheckpointError(CheckpointError):
    """Files of a checkpoint are missing, cut off or damaged."""


class Checkpoints:
    """The checkpoints in one directory, saved in the background.

    Every process of a run must make the same calls in the same order: Orbax coordinates them.

    Args:
      directory: where the checkpoints are, usually `<workdir>/checkpoints`; local or `gs://`.
      config: what to keep; None opens the directory for reading only, as is
        right beside a run that may still be saving there.
    """

    def __init__(self, directory: epath.PathLike, config: CheckpointConfig | None) -> None:
        self._directory = epath.Path(directory)
        if is_local(self._directory):
            # Orbax takes no relative path.
            self._directory = epath.Path(os.path.abspath(self._directory))
        self._config = config
        self._saving: int | None = None
        # A process that cannot read a checkpoint would leave the others in the manager's barrier.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(**_handlers()), multiprocessing_options=alone
        )
        try:
            self._manager = self._open()
        except OSError as error:
            raise CheckpointError(
                f"cannot use {self._directory} for checkpoints: {_cause(error)}; make it writable "
                "or choose another --workdir"
            ) from error

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bool:
        """Saves the state in the background.

        `state` may be donated to the next step as soon as this returns. A step is saved once, so
        evaluate first and save afterwards: of one that is already there, only an evaluation is
        added that it lacks. An error while writing is raised by whatever comes next: the next step
        that is saved, anything that reads, `wait` or `close`. The checkpoints that were to make
        room for this one are deleted only when it is complete.

        Args:
          step: steps done.
          state: any tree of `jax.Array`s.
          metrics: an evaluation of this state, by which the best checkpoints are kept.
          extra: what else has to survive, as JSON values; see `extra`.

        Returns:
          Whether the state was saved; False if the step is already there.

        Raises:
          CheckpointError: the directory is open for reading only, or cannot be written to.
        """
        if self._config is None:
            raise CheckpointError(f"{self._directory} is open for reading only")
        scores = {name: float(value) for name, value in (metrics or {}).items()}
        if step in self._manager.all_steps():
            self._add_evaluation(step, scores)
            return False
        leaves = named_leaves(state)
        notes = json.loads(json.dumps(dict(extra or {})))  # As it will be read.
        checksums = {
            "state": state_checksum(state),
            "leaves": _leaves_checksum(leaves),
            "notes": _notes_checksum(notes, scores),
        }
        self.wait()
        self._saving = step
        with self._writing():
            return self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        _STATE: ocp.args.PyTreeSave(_nested(leaves)),
                        _EXTRA: ocp.args.JsonSave(
                            notes | {_CHECKSUMS: checksums, _BEST_BY: self.best_by()}
                        ),
                    }
                ),
                metrics=scores,
                force=True,
            )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None; one being written is waited for."""
        return next(iter(self._steps()), None)

    def best_step(self) -> int | None:
        """The step with the best evaluation (of equals the newest), or None without evaluations.

        What is best, the config says; to one who only reads, the newest checkpoint.

        Raises:
          CheckpointError: the newest checkpoint cannot be read.
        """
        steps = self._steps()
        if not steps:
            return None
        by = self.best_by()
        scores = {step: _score(by, self._manager.metrics(step) or {}) for step in steps}
        best = max(steps, key=scores.__getitem__)  # Of equals the first, which is the newest.
        return best if scores[best] > -math.inf else None

    def best_by(self) -> str:
        """What the best checkpoint is chosen by, such as `top1`.

        Raises:
          CheckpointError: there is no checkpoint, or the newest cannot be read.
        """
        if self._config is not None:
            return self._config.best_by or "top1"
        step = self._existing(None)
        with self._reading(step):
            return str(self._read(step, _EXTRA, ocp.args.JsonRestore()).get(_BEST_BY, "top1"))

    def find(self, checkpoint: Checkpoint) -> int:
        """The step of a checkpoint: itself, or that of the `last` or `best` one.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        if checkpoint != "best":
            return self._existing(None if checkpoint == "last" else checkpoint)
        self._existing(None)
        best = self.best_step()
        if best is None:
            raise CheckpointError(
                f"no checkpoint in {self._directory} was evaluated, and so none is the best; there "
                f"are {self._steps()[::-1]}"
            )
        return best

    def restore(self, like: Tree, step: int | None = None) -> Tree:
        """Reads a whole state.

        Args:
          like: a tree of arrays or `jax.ShapeDtypeStruct`s, as the state was when saved. The
            result takes its structure and its shardings; a leaf without sharding goes to the
            default device. The number of devices may have changed since.
          step: which checkpoint; None takes the newest.

        Raises:
          BrokenCheckpointError: files of it are missing or damaged, or its state is not the one
            that was saved.
          CheckpointError: there is no such checkpoint, or its leaves differ from `like`'s, or
            it cannot be read.
        """
        return self._restore(like, step, partial=False)

    def restore_newest(self, like: Tree, *, report: Callable[[str], None]) -> tuple[int, Tree]:
        """Reads the newest state that is whole, and moves newer ones that are broken aside.

        They go to `broken_checkpoints`, beside the directory, unless it is open for reading only.
        With several processes a checkpoint that one of them cannot read counts as broken; which
        there are, the first process says.

        Args:
          like: as for `restore`.
          report: called with what is wrong with each broken checkpoint, and where it went.

        Returns:
          The step and its state.

        Raises:
          CheckpointError: there is no checkpoint, or none is whole, and none was moved; or one
            does not fit, or cannot be read or moved.
        """
        if not (steps := self._steps()):
            raise CheckpointError(f"no checkpoint in {self._directory}")
        broken: dict[int, str] = {}
        for step in steps:
            path, fault = self._directory / str(step), ""
            with all_or_none(CheckpointError, f"{path} cannot be restored by another process"):
                try:
                    state = self.restore(like, step)
                    if (name := first_not_finite(state)) is not None:
                        raise self._broken(step, f"{name} in it is not finite")
                except BrokenCheckpointError as error:
                    fault = str(error)
            if all_true(not fault):
                places = self._set_aside(broken)
                for newer, message in broken.items():
                    report(message + places.get(newer, ""))
                return step, state
            broken[step] = fault or f"checkpoint {path} is broken for another process"
        raise CheckpointError(
            f"none of the checkpoints in {self._directory} is whole; they are left as they are. "
            "Bring one back, or begin anew in another --workdir:\n  " + "\n  ".join(broken.values())
        )

    def restore_parts(self, like: Tree, step: int | None = None) -> Tree:
        """Reads a part of a state, such as its parameters without the optimizer's.

        Args:
          like: as for `restore`, but holding only what is wanted, under the same names: for
            instance `{"params": ..., "batch_stats": ...}` for a state with these fields.
          step: which checkpoint; None takes the newest.

        Raises:
          BrokenCheckpointError: files of it are missing or damaged, or a part of its state that
            `like` wants with all its leaves is not the one that was saved.
          CheckpointError: there is no such checkpoint, or it lacks some of `like`'s leaves, or
            it cannot be read.
        """
        return self._restore(like, step, partial=True)

    def extra(self, step: int | None = None) -> dict[str, Any]:
        """The `extra` saved with a checkpoint, the newest by default.

        Raises:
          CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        return self._notes(self._existing(step))[0]

    def checksum(self, step: int, field: str) -> int | None:
        """That of a field of the state, such as `params`; None where it is not known.

        Raises:
          CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        _, checksums = self._notes(self._existing(step))
        found = (checksums or {}).get("state", {}).get(field)
        return None if found is None else int(found)

    def metrics(self, step: int | None = None) -> dict[str, float]:
        """The evaluation saved with a checkpoint, the newest by default; empty without one.

        Raises:
          CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        step = self._existing(step)
        metrics = self._manager.metrics(step)
        if metrics is None:
            raise self._broken(step, "its metrics are missing or not JSON")
        return dict(metrics)

    def wait(self) -> None:
        """Blocks until everything is saved.

        Raises:
          CheckpointError: it could not be saved.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being saved and ends the background threads.

        Raises:
          CheckpointError: it could not be saved.
        """
        try:
            self.wait()
        finally:
            with self._writing():
                self._manager.close()
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.close()
        except CheckpointError as another:
            if error is None:
                raise
            error.add_note(str(another))

    def _add_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Adds to a checkpoint the evaluation it lacks, as one has whose evaluation was stopped."""
        self.wait()
        if not scores or self._manager.metrics(step):
            return
        with all_or_none(CheckpointError, "the first process cannot add an evaluation"):
            if jax.process_index() == 0:
                path = self._directory / str(step) / _EVALUATION
                content = {"metrics": dict(scores), "checksum": _notes_checksum({}, scores)}
                with self._writing():
                    write_text(path, json.dumps(content))
        with self._writing():
            self._manager.reload()

    def _open(self) -> ocp.CheckpointManager:
        config = self._config
        if config is None:
            options = ocp.CheckpointManagerOptions(
                read_only=True,
                create=False,
                save_interval_steps=0,
                best_fn=functools.partial(_score, "top1"),  # Else it reads no metrics.
            )
        else:
            score = functools.partial(_score, self.best_by())
            options = ocp.CheckpointManagerOptions(
                best_fn=score,
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [
                        preservation_policy.LatestN(config.keep_last),
                        preservation_policy.BestN(
                            get_metric_fn=score,
                            n=config.keep_best,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # A killed process leaves an unfinished checkpoint behind; nobody else removes it.
                cleanup_tmp_directories=True,
                # Else threads wait for a directory that cannot be made, and the process for them.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )
        with _without_read_only_warning():
            return _Manager(
                self._directory,
                options=options,
                item_handlers=_handlers(),
            )

    def _steps(self) -> list[int]:
        """Whole checkpoints as the first process sees them, the newest first."""
        self.wait()
        return of_first_process(self._manager.all_steps()[::-1], most=_MOST)

    def _existing(self, step: int | None) -> int:
        self.wait()
        steps = self._manager.all_steps()
        if not steps:
            raise CheckpointError(f"no checkpoint in {self._directory}")
        if step is None:
            return steps[-1]
        if step not in steps:
            raise CheckpointError(
                f"no checkpoint of step {step} in {self._directory}; there are {list(steps)}"
            )
        return step

    def _restore(self, like: Tree, step: int | None, *, partial: bool) -> Tree:
        step = self._existing(step)
        wanted = {path: _abstract(leaf) for path, leaf in named_leaves(like).items()}
        _, checksums = self._notes(step)
        with self._reading(step):
            saved = named_leaves(self._manager.item_metadata(step)[_STATE].tree)
            if checksums and checksums.get("leaves") != _leaves_checksum(saved):
                raise self._broken(step, "its leaves are not those that were saved")
        differing = _differing(saved, wanted, partial=partial)
        if differing:
            more = f"\n  and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
            raise CheckpointError(
                f"checkpoint {self._directory / str(step)} does not fit; leaves that differ:\n  "
                + "\n  ".join(differing[:_LISTED])
                + more
            )
        tree = _nested(wanted)
        args = ocp.args.PyTreeRestore(
            item=tree,
            restore_args=ocp.checkpoint_utils.construct_restore_args(tree),
            partial_restore=partial,
        )
        with self._reading(step):
            restored = self._read(step, _STATE, args)
        by_path = named_leaves(restored)
        if checksums:
            cut = {path[0] for path in saved if path not in wanted}
            whole = {path: leaf for path, leaf in by_path.items() if path[0] not in cut}
            stored = checksums.get("state", {})
            for name, checksum in state_checksum(_nested(whole)).items():
                if checksum != stored.get(name):
                    raise self._broken(step, f"its {name} is not what was saved")
        leaves = [by_path[path] for path in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _notes(self, step: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The extras saved with a checkpoint, and its checksums if it has them."""
        with self._reading(step):
            notes = dict(self._read(step, _EXTRA, ocp.args.JsonRestore()))
            metrics = self._manager.saved_metrics(step)
            if metrics is None:
                raise self._broken(step, "its metrics are missing or not JSON")
        notes.pop(_BEST_BY, None)
        checksums = notes.pop(_CHECKSUMS, None)
        if checksums and checksums.get("notes") != _notes_checksum(notes, metrics):
            raise self._broken(step, "its extras or metrics are not what was saved")
        return notes, checksums

    def _read(self, step: int, item: str, args: ocp.args.CheckpointArgs) -> Any:
        path = self._directory / str(step)
        return self._reader.restore(path, ocp.args.Composite(**{item: args}))[item]

    def _broken(self, step: int, fault: str) -> BrokenCheckpointError:
        return BrokenCheckpointError(
            f"checkpoint {self._directory / str(step)} cannot be read: {fault}"
        )

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turns what Orbax raises over missing or broken files into a CheckpointError."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                raise  # Of the devices, such as a lack of memory.
            cause = _cause(error)
            if _is_out_of_reach(error):
                raise CheckpointError(
                    f"checkpoint {self._directory / str(step)} cannot be reached: {cause}"
                ) from error
            raise self._broken(step, cause) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what Orbax raises when it cannot save into a CheckpointError."""
        try:
            yield
        except Exception as error:
            failed = "change them" if self._saving is None else f"save step {self._saving}"
            try:
                newest = max(_whole_steps(self._directory), default=None)
                left = (
                    "No checkpoint is" if newest is None else f"The checkpoint of step {newest} is"
                )
                left += " there"
                self._reopen()
            except Exception:
                left = "They cannot be read either"
            raise CheckpointError(
                f"checkpoints in {self._directory}: cannot {failed}: {_cause(error)}. {left}. "
                "Make room there, or make it writable, and start the run again to go on from there"
            ) from error

    def _reopen(self) -> None:
        """Gets rid of a manager that failed: it would raise its error again, at any later call.

        It has forgotten, too, those checkpoints that would have been deleted. With several
        processes such a run is at its end, as the others cannot know of the error.
        """
        if jax.process_count() > 1:
            return
        for _ in range(2):  # The first time it only raises the error.
            with contextlib.suppress(Exception):
                self._manager.close()
        self._manager = self._open()

    def _set_aside(self, steps: Iterable[int]) -> dict[int, str]:
        """Moves checkpoints to `broken_checkpoints`; returns what to say of each that was moved."""
        if self._config is None:
            return {}
        places = {}
        with all_or_none(CheckpointError, "the first process cannot move broken checkpoints aside"):
            for step in steps:
                source = self._directory / str(step)
                target = _free(self._directory.parent / "broken_checkpoints", str(step))
                places[step] = f"; it is now {target}"
                if jax.process_index() > 0:
                    continue
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    move_directory(source, target)
                except OSError as error:
                    raise CheckpointError(
                        f"{source} is broken and cannot be moved to {target}: {_cause(error)}; "
                        "move it yourself"
                    ) from error
        # Only now that the first process has changed the directory do the others list it.
        if places:
            with self._writing():
                self._manager.reload()
        return places


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    return {_STATE: ocp.PyTreeCheckpointHandler(), _EXTRA: ocp.JsonCheckpointHandler()}


class _Manager(ocp.CheckpointManager):
    """Orbax's, for a run that has ways of its own to end."""

    def metrics(self, step: int) -> Any:
        """Those it was saved with, or else those that were added."""
        saved = self.saved_metrics(step)
        return saved or self._added(step) or saved

    def saved_metrics(self, step: int) -> Any:
        """Takes broken metrics for missing ones: else a broken one would hide all checkpoints."""
        try:
            return super().metrics(step)
        except ValueError:
            return None

    def _added(self, step: int) -> Any:
        path = epath.Path(self.directory) / str(step) / _EVALUATION
        try:
            content = json.loads(path.read_text())
            whole = content["checksum"] == _notes_checksum({}, content["metrics"])
            return content["metrics"] if whole else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def reached_preemption(self, step: int) -> bool:
        """Leaves it to the loop: whoever asks the service sets its count of steps, too."""
        return False

    def _finalize(self, step: int, steps_to_remove: list[int]) -> None:
        # An error of one process: else it would wait, before it tells of it, for the others, which
        # wait for its part of the checkpoint.
        self._wait_for_checkpointers()
        super()._finalize(step, steps_to_remove)


def has_checkpoint(directory: epath.PathLike) -> bool:
    """Whether there is a complete checkpoint; it may turn out to be damaged."""
    return bool(_whole_steps(epath.Path(directory)))


def _whole_steps(directory: epath.Path) -> Sequence[int]:
    return ocp.utils.checkpoint_steps(directory)


def _free(directory: epath.Path, name: str) -> epath.Path:
    """A path in the directory that is not taken: of this name, or with a number appended."""
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
    return next(path for path in map(directory.__truediv__, names) if not path.exists())


_FULL = "No space left on device"
_OUT_OF_REACH = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
)


def _cause(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = str(error).strip()
    return _FULL if _FULL in text else ": ".join([type(error).__name__, *text.splitlines()[:1]])


def _is_out_of_reach(error: Exception) -> bool:
    """Whether the files may be whole, but cannot be read now."""
    return (
        is_passing(error)
        or isinstance(error, PermissionError)
        or any(status in str(error) for status in _OUT_OF_REACH)
    )


@contextlib.contextmanager
def _without_read_only_warning() -> Iterator[None]:
    """Orbax warns of what was asked for."""

    def other(record: logging.LogRecord) -> bool:
        return "read only" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


_Path = tuple[str, ...]


def _score(by: str, metrics: Mapping[str, float]) -> float:
    """What a checkpoint is ranked by; without a usable value it ranks below all others."""
    _, value = scored(by, metrics)
    score = -value if by.endswith("loss") else value
    return -math.inf if math.isnan(score) else score


def scored(by: str, metrics: Mapping[str, float]) -> tuple[str, float]:
    """The name and the value of the metric that `CheckpointConfig.best_by` means; else NaN.

    Args:
      metrics: of an evaluation; those of averaged weights come before those trained last.
    """
    names = (f"ema_{by}", f"raw_{by}", by)
    found = next((name for name in names if name in metrics), by)
    return found, metrics.get(found, math.nan)


def _nested(leaves: Mapping[_Path, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, name), leaf in leaves.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _differing(
    saved: Mapping[_Path, Any], wanted: Mapping[_Path, Any], *, partial: bool
) -> list[str]:
    """One line for each leaf that `saved` cannot provide or `wanted` does not take."""

    def describe(leaves: Mapping[_Path, Any], path: _Path) -> str:
        if path not in leaves:
            return "absent"
        return f"{leaves[path].dtype}{list(leaves[path].shape)}"

    paths = wanted if partial else dict.fromkeys(itertools.chain(wanted, saved))
    return [
        f"{'/'.join(path)}: {describe(saved, path)} in the checkpoint, {describe(wanted, path)} now"
        for path in paths
        if describe(saved, path) != describe(wanted, path)
    ]


def _leaves_checksum(leaves: Mapping[_Path, Any]) -> int:
    """Of names, shapes and dtypes."""
    lines = [f"{'/'.join(path)} {leaf.dtype} {leaf.shape}" for path, leaf in leaves.items()]
    return zlib.crc32("\n".join(sorted(lines)).encode())


def _notes_checksum(extra: Mapping[str, Any], metrics: Mapping[str, float]) -> int:
    return zlib.crc32(json.dumps([extra, metrics], sort_keys=True).encode())
