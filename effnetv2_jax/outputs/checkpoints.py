"""Checkpoints of a training run: the only file of the package that imports Orbax.

A checkpoint holds the state's arrays under names (`params`, `stem`, `kernel`, ...) instead of
under the Python types that held them, so it can be read in part, by other code, and after an
optimizer's containers have changed their types.
"""

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from effnetv2_jax.experiment import CheckpointConfig
from effnetv2_jax.outputs.files import is_local

Tree = TypeVar("Tree")

_STATE, _EXTRA = "state", "extra"
_METRIC = "top1"
_LISTED = 5


class CheckpointError(RuntimeError):
    """Nothing to restore, or nothing that fits; the message names the directory."""


class Checkpoints:
    """The checkpoints in one directory, saved in the background.

    Every process of a run must make the same calls in the same order: Orbax coordinates them.

    Args:
      directory: where the checkpoints are, usually `<workdir>/checkpoints`; local or `gs://`.
      config: when to save and what to keep; None opens the directory for reading only, as is
        right beside a run that may still be saving there.
    """

    def __init__(self, directory: epath.PathLike, config: CheckpointConfig | None) -> None:
        self._directory = epath.Path(directory)
        if is_local(self._directory):
            # Orbax takes no relative path.
            self._directory = epath.Path(os.path.abspath(self._directory))
        self._config = config
        if config is None:
            options = ocp.CheckpointManagerOptions(
                read_only=True, create=False, save_interval_steps=0, best_fn=_score
            )
        else:
            options = ocp.CheckpointManagerOptions(
                best_fn=_score,
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [
                        preservation_policy.LatestN(config.keep_last),
                        preservation_policy.BestN(
                            get_metric_fn=_score,
                            n=config.keep_best,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # A killed process leaves an unfinished checkpoint behind; nobody else removes it.
                cleanup_tmp_directories=True,
            )
        with _without_read_only_warning():
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=options,
                item_handlers={
                    _STATE: ocp.PyTreeCheckpointHandler(),
                    _EXTRA: ocp.JsonCheckpointHandler(),
                },
            )

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> bool:
        """Saves the state in the background, if this step is due.

        `state` may be donated to the next step as soon as this returns. A step is saved once, so
        evaluate first and save afterwards. An error while writing is raised by whatever comes
        next: the next step that is saved, anything that reads, `wait` or `close`.

        Args:
          step: steps done; due are the multiples of `config.every_steps`.
          state: any tree of `jax.Array`s.
          metrics: an evaluation of this state; by its `top1` the best checkpoints are kept.
          extra: what else has to survive, as JSON values; see `extra`.
          force: saves a step that is not due.

        Returns:
          Whether the state was saved; False if it is not due or already there.
        """
        if self._config is None:
            raise CheckpointError(f"{self._directory} is open for reading only")
        due = force or step % self._config.every_steps == 0
        if not due or step in self._manager.all_steps():
            return False
        return self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    _STATE: ocp.args.PyTreeSave(_nested(_named_leaves(state))),
                    _EXTRA: ocp.args.JsonSave(dict(extra or {})),
                }
            ),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            force=True,
        )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None; one being written is waited for."""
        self.wait()
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the highest `top1` (of equals the newest), or None without evaluations."""
        self.wait()
        step = self._manager.best_step()
        return step if step is not None and _score(self.metrics(step)) > -math.inf else None

    def restore(self, like: Tree, step: int | None = None) -> Tree:
        """Reads a whole state.

        Args:
          like: a tree of arrays or `jax.ShapeDtypeStruct`s, as the state was when saved. The
            result takes its structure and its shardings; a leaf without sharding goes to the
            default device. The number of devices may have changed since.
          step: which checkpoint; None takes the newest.

        Raises:
          CheckpointError: there is no such checkpoint, or its leaves differ from `like`'s, or
            it cannot be read.
        """
        return self._restore(like, step, partial=False)

    def restore_parts(self, like: Tree, step: int | None = None) -> Tree:
        """Reads a part of a state, such as its parameters without the optimizer's.

        Args:
          like: as for `restore`, but holding only what is wanted, under the same names: for
            instance `{"params": ..., "batch_stats": ...}` for a state with these fields.
          step: which checkpoint; None takes the newest.

        Raises:
          CheckpointError: there is no such checkpoint, or it lacks some of `like`'s leaves, or
            it cannot be read.
        """
        return self._restore(like, step, partial=True)

    def extra(self, step: int | None = None) -> dict[str, Any]:
        """The `extra` saved with a checkpoint, the newest by default.

        Raises:
          CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        step = self._existing(step)
        args = ocp.args.Composite(**{_EXTRA: ocp.args.JsonRestore()})
        with self._reading(step):
            return dict(self._manager.restore(step, args=args)[_EXTRA])

    def metrics(self, step: int | None = None) -> dict[str, float]:
        """The evaluation saved with a checkpoint, the newest by default; empty without one.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        return dict(self._manager.metrics(self._existing(step)) or {})

    def cut_back(self, step: int) -> None:
        """Deletes all checkpoints after `step`, for a run that goes back to it."""
        self.wait()
        for later in [saved for saved in self._manager.all_steps() if saved > step]:
            self._manager.delete(later)

    def wait(self) -> None:
        """Blocks until everything is saved."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being saved and ends the background threads."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        wanted = {path: _abstract(leaf) for path, leaf in _named_leaves(like).items()}
        with self._reading(step):
            saved = _named_leaves(self._manager.item_metadata(step)[_STATE].tree)
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
            restored = self._manager.restore(step, args=ocp.args.Composite(**{_STATE: args}))
        by_path = _named_leaves(restored[_STATE])
        leaves = [by_path[path] for path in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turns what Orbax raises over missing or broken files into a CheckpointError."""
        try:
            yield
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointError(
                f"checkpoint {self._directory / str(step)} cannot be read; if files of it are "
                f"missing or broken, delete it to use the others ({type(error).__name__} above)"
            ) from error


def has_checkpoint(directory: epath.PathLike) -> bool:
    """Whether there is a whole checkpoint; unfinished ones have other names."""
    directory = epath.Path(directory)
    return directory.is_dir() and any(child.name.isdigit() for child in directory.iterdir())


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


def _score(metrics: Mapping[str, float]) -> float:
    """What a checkpoint is ranked by; without a usable value it ranks below all others."""
    score = metrics.get(_METRIC, -math.inf)
    return -math.inf if math.isnan(score) else score


def _named_leaves(tree: Any) -> dict[_Path, Any]:
    """The leaves in flattening order, each under the names that lead to it."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }


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
