"""Which field somebody may mean who names one that there is not."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import ml_collections

from effnetv2_jax.config.reading import unknown_field

MEANINGS = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "train_epochs": "epochs",
    "num_steps": "epochs",
    "steps": "epochs",
    "max_steps": "epochs",
    "workers": "threads",
    "num_workers": "threads",
    "dataset": "source",
    "data_dir": "path",
    "data_path": "path",
    "dataset_path": "path",
    "arch": "model.name",
    "architecture": "model.name",
    "model_name": "model.name",
    "opt": "optimizer.name",
    "sched": "schedule.name",
    "scheduler": "schedule.name",
    "lr_schedule": "schedule.name",
    "warmup": "warmup_epochs",
    "img_size": "image_size",
    "input_size": "image_size",
    "resolution": "image_size",
    "dropout": "dropout_rate",
    "drop": "dropout_rate",
    "drop_path": "stochastic_depth_rate",
    "drop_path_rate": "stochastic_depth_rate",
    "drop_connect": "stochastic_depth_rate",
    "survival_prob": "stochastic_depth_rate",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "randaugment": "randaugment_magnitude",
    "magnitude": "randaugment_magnitude",
    "smoothing": "label_smoothing",
    "ema": "ema_decay",
    "model_ema_decay": "ema_decay",
    "clip_grad": "gradient_clip",
    "grad_clip": "gradient_clip",
    "clip": "gradient_clip",
    "accumulate": "gradient_accumulation",
    "grad_accum": "gradient_accumulation",
    "accumulation_steps": "gradient_accumulation",
    "pretrained": "init",
    "weights": "init",
    "checkpoint_path": "init",
    "finetune": "init",
    "classes": "num_classes",
    "precision": "model.dtype",
    "fp16": "model.dtype",
    "bf16": "model.dtype",
    "amp": "model.dtype",
    "freeze": "rates",
    "trainable": "rates",
    "save_every": "checkpoint.every_steps",
    "log_every": "log.every_steps",
    "eval_every": "every_epochs",
}
"""What other programs call a field, and its name here, or the end of its path."""
_SHOWN = 3


def unknown(config: ml_collections.ConfigDict, name: str, *, where: str, known: list[str]) -> str:
    """The message for a field that does not exist, with those that may be meant.

    Args:
      config: the whole one.
      name: that was stated.
      where: it was looked for, such as `config.optimizer`.
      known: the fields that are there.
    """
    found = [f"config.{path}" for path in _of_that_name(config, name)]
    beside = [path for path in found if path.rpartition(".")[0] == where]
    if beside:
        return f"{where} has no field {name!r}; did you mean {beside[0].rpartition('.')[2]!r}?"
    if not found:
        message = unknown_field(name, known, where=where)
        found = [f"config.{path}" for path in _of_close_names(config, name)]
        if "did you mean" in message or not found:
            return message
    return f"{where} has no field {name!r}; did you mean {' or '.join(found[:_SHOWN])}?"


def meant(config: ml_collections.ConfigDict, name: str) -> list[str]:
    """The paths in a config that a name may mean, the likeliest first; none where nothing is close.

    Args:
      config: the whole one.
      name: such as `lr` or `learning-rate`.
    """
    return (_of_that_name(config, name) or _of_close_names(config, name))[:_SHOWN]


def _of_that_name(config: Any, name: str) -> list[str]:
    every = list(_paths(config))
    means = MEANINGS.get(name.lower().replace("-", "_"), name)
    found = [path for path in every if _ends(path, name)]
    found = found or [path for path in every if _ends(path, means)]
    return sorted(found, key=lambda path: path.count("."))


def _of_close_names(config: Any, name: str) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for path in _paths(config):
        by_name.setdefault(_plain(path.rpartition(".")[2]), []).append(path)
    close = difflib.get_close_matches(_plain(name), by_name, n=_SHOWN, cutoff=0.8)
    return [path for found in close for path in by_name[found]]


def _paths(config: Any, path: str = "") -> Iterator[str]:
    """Of all fields, groups too; those of a table by its first row."""
    if isinstance(config, ml_collections.ConfigDict):
        for name, value in config.items():
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from _paths(value, inner)
    elif isinstance(config, tuple) and config:
        yield from _paths(config[0], f"{path}[0]")


def _ends(path: str, name: str) -> bool:
    return f".{_plain(path)}".endswith(f".{_plain(name)}")


def _plain(name: str) -> str:
    return re.sub("[_-]", "", name).lower()
