"""Where a run begins: its model, and the weights it starts from."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.outputs.checkpoints import has_checkpoint
from effnetv2_jax.outputs.workdir import read_preprocessing
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.hub import UnreachableError
from effnetv2_jax.weights.pretrained import fit


def initial_model(
    experiment: Experiment, class_names: Sequence[str], workdir: epath.PathLike | None
) -> tuple[Model, dict[str, Any] | None]:
    """The model of a run that starts or continues in `workdir`, and the variables to start from.

    Variables are None where they are to be drawn, or come from a checkpoint: a run that continues
    has no need of `experiment.init` any more.

    Args:
      class_names: the data's. A head that tells others apart starts anew.
      workdir: None where there is none, and nothing to continue.

    Raises:
      ConfigError: there is no such model.
      WeightsError: the weights in `experiment.init` cannot be had, or are for another network; the
        message names the field in which it differs.
    """
    continues = workdir is not None and has_checkpoint(epath.Path(workdir) / "checkpoints")
    if experiment.init and not continues:
        found = find_weights(experiment.init, name=experiment.model.name)
        found.check(experiment.model)
        model = build_model(experiment, len(class_names), found.preprocessing)
        try:
            return model, fit(found, model, class_names=class_names, seed=experiment.seed)
        except UnreachableError as error:
            raise WeightsError(
                f"{error}. What starts without the Hub: weights of your own by --config.init=PATH, "
                "those of a package by --config=configs/finetune.py:lite, or random ones by "
                "--config=configs/folder.py"
            ) from error
    own = None if workdir is None else read_preprocessing(workdir)
    return build_model(experiment, len(class_names), own), None
