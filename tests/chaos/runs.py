"""Runs of the training program in processes of their own, and what they leave in their workdir."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processes import Processes

from effnetv2_jax.config.experiment import Experiment

CONFIG = """
import json
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
def get_config():
    return to_config_dict(from_config_dict(json.loads({experiment!r})))
"""
TAIL = 4096
"""Bytes that hold the last line of a log."""


def launch(
    experiment: Experiment,
    workdir: Path,
    *,
    processes: int = 1,
    devices: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Processes:
    """Starts the training program.

    Args:
      experiment: what to train.
      workdir: beside it lie the config and what the processes write to their standard streams.
      processes: how many.
      devices, variables: as for `Processes`.
    """
    config = workdir.with_suffix(".py")
    config.write_text(CONFIG.format(experiment=json.dumps(dataclasses.asdict(experiment))))
    return Processes(
        "-m",
        "effnetv2_jax.main",
        f"--config={config}",
        f"--workdir={workdir}",
        folder=workdir.parent,
        count=processes,
        devices=devices,
        variables=variables,
    )


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`."""
    return _lines(workdir / "metrics.jsonl")


def events(workdir: Path, name: str | None = None) -> list[dict[str, Any]]:
    """The whole lines of `events.jsonl`, or those of one event."""
    return [e for e in _lines(workdir / "events.jsonl") if name in (None, e["event"])]


def deterministic(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what no two runs share."""
    own = ("train/images_per_second", "time", "spent")
    return [{k: v for k, v in line.items() if k not in own} for line in lines]


def last_metrics(workdir: Path) -> dict[str, Any]:
    """The last whole line of `metrics.jsonl`, or else that of no step; cheap."""
    return next(reversed(_lines(workdir / "metrics.jsonl", tail=TAIL)), {"step": 0})


def newest_checkpoint(workdir: Path) -> int:
    """The step of the newest checkpoint that is complete; 0 without one."""
    return max((int(name) for name in _names(workdir) if name.isdigit()), default=0)


def is_saving(workdir: Path) -> bool:
    """Whether there is a checkpoint that is not complete."""
    return any("tmp" in name for name in _names(workdir))


def _names(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def _lines(path: Path, *, tail: int | None = None) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        if tail is not None and path.stat().st_size > tail:
            file.seek(-tail, 2)
            file.readline()
        return [json.loads(line) for line in file if line.endswith(b"\n")]
