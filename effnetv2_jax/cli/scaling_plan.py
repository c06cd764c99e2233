"""The family of networks that scaling makes of a config's table of stages."""

import dataclasses
from collections.abc import Iterator

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.report import survey
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.scaling import SCALINGS
from effnetv2_jax.models.registry import model_of

_COLUMNS = (
    "scaled like".ljust(17),
    "width",
    "depth",
    "train/eval size",
    "blocks",
    "  parameters",
    "  GMACs",
    " channels x blocks by stage",
)


def describe_scaling(experiment: Experiment) -> Iterator[str]:
    """Yields the lines of a table as they are ready: counting a large network takes seconds.

    Raises:
      ConfigError: the network is no EfficientNet.
      DataError: the data has to be counted and is missing.
    """
    config = experiment.model
    if not isinstance(config, EfficientNetConfig):
        raise ConfigError(
            f"config.model.name is {config.name!r}; only tables of EfficientNet's stages are scaled"
        )
    classes = survey(experiment.data).classes
    yield "  ".join(_COLUMNS)
    for name, scaling in SCALINGS.items():
        scaled = config.scaled(name)
        table = scaled.table()
        cost = complexity(
            model_of(dataclasses.replace(scaled, dtype="float32"), num_classes=classes),
            height=scaling.eval_size,
            width=scaling.eval_size,
        )
        cells = (
            name.ljust(17),
            f"{scaling.width:g}",
            f"{scaling.depth:g}",
            f"{scaling.train_size}/{scaling.eval_size}",
            str(sum(row.repeats for row in table)),
            f"{cost.trainable:,}",
            f"{cost.macs / 1e9:.3g}",
            " " + " ".join(f"{row.outputs}x{row.repeats}" for row in table),
        )
        yield "  ".join(
            cell.rjust(len(title)) for cell, title in zip(cells, _COLUMNS, strict=True)
        ).rstrip()
