"""Where a run begins: its model, and the weights it starts from."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.outputs.checkpoints import has_checkpoint
from effnetv2_jax.outputs.workdir import read_preprocessing
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.pretrained import fit


def initial_model(
    experiment: Experiment, class_names: Sequence[str], workdir: epath.PathLike
) -> tuple[Model, dict[str, Any] | None]:
    """The model of a run that starts or continues in `workdir`, and the variables to start from.

    Variables are None where they are to be drawn, or come from a checkpoint: a run that continues
    has no need of `experiment.init` any more.

    Args:
      class_names: the data's. A head that tells others apart starts anew.

    Raises:
      ConfigError: there is no such model.
      WeightsError: the weights in `experiment.init` cannot be had, or are for another network; the
        message names the field in which it differs.
    """
    if experiment.init and not has_checkpoint(epath.Path(workdir) / "checkpoints"):
        found = find_weights(experiment.init, name=experiment.model.name)
        found.check(experiment.model)
        model = build_model(experiment, len(class_names), found.preprocessing)
        return model, fit(found, model, class_names=class_names, seed=experiment.seed)
    return build_model(experiment, len(class_names), read_preprocessing(workdir)), None
