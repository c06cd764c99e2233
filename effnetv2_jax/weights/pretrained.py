"""Models with weights, in one line."""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.layers import Classifier
from effnetv2_jax.models.libraries import TIMM
from effnetv2_jax.models.registry import create_model
from effnetv2_jax.weights.convert import from_source
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.found import Found

_log = logging.getLogger(__name__)

Variables = dict[str, Any]


def load_pretrained(
    name: str | None, weights: Any, *, num_classes: int | None = None, **overrides: Any
) -> tuple[EfficientNet, Variables]:
    """A model with trained weights.

    Args:
      name: one of `list_models()`; None takes what the weights say they are for.
      weights: one of
        a tag of the model's published weights: `in1k` (ImageNet), `in21k` (ImageNet21k) or
        `in21k-ft1k` (that, fine-tuned on ImageNet); `published.TAGS` has them all;
        `hub:OWNER/REPO[@REVISION]` on the Hugging Face Hub, in timm's format;
        the path of a file: timm's or torchvision's `.safetensors` or `.pth`, Keras's `.keras` or
        `.h5`, the authors' TensorFlow checkpoint;
        the path of a folder: a run's `--workdir` (or `workdir:PATH`; averaged weights are
        preferred), or what `save_pretrained` wrote;
        a live Keras model, or a state dict.
      num_classes: None keeps the weights' classifier; another number than theirs starts a new one,
        and says so; 0 leaves it out.
      **overrides: fields of the model, as for `create_model`.

    Returns:
      The model, with the weights' `preprocessing` and `class_names` as far as known, and its
      variables: `params` and `batch_stats`, on the default device.

    Raises:
      WeightsError: there are no such weights, they are damaged, or do not fit the model; the
        message lists missing, unexpected and wrongly shaped arrays.
      ValueError: there is no such model.
    """
    found = find_weights(weights, name=name)
    model = model_for(found, num_classes=num_classes, **overrides)
    return model, jax.tree.map(jnp.asarray, fit(found, model))


def model_for(found: Found, *, num_classes: int | None = None, **overrides: Any) -> EfficientNet:
    """The model that weights are for; see `load_pretrained`."""
    assert found.name is not None
    classes = found.num_classes if num_classes is None else num_classes
    fields: dict[str, Any] = dict(found.fields)
    if found.preprocessing is not None:
        fields["preprocessing"] = found.preprocessing
    if classes == found.num_classes:
        fields["class_names"] = found.class_names
    if found.source is TIMM and "v2" not in found.name and "padding" not in fields | overrides:
        _log.warning(
            "%s: taken for timm's tf_efficientnet_*; for weights of its efficientnet_* pass "
            "padding='symmetric', bn_epsilon=1e-5",
            found.title,
        )
    return create_model(found.name, num_classes=classes, **(fields | overrides))


def fit(
    found: Found,
    model: EfficientNet,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Variables:
    """A model's variables from weights, as NumPy arrays.

    Args:
      class_names: that the model has to tell apart; None looks at their number alone.
      seed: of a classifier that starts anew because it tells other classes apart.

    Raises:
      WeightsError: the weights do not fit the model.
    """
    for field, value in found.fields.items():
        if getattr(model, field) != value:
            raise WeightsError(
                f"{found.title} has weights for {field}={value!r}, but the model has "
                f"{getattr(model, field)!r}; set {field} (in a config, model.{field}) to that"
            )
    whole = model.clone(num_classes=found.num_classes, features_only=False)
    variables = from_source(whole, found.arrays, found.source, title=found.title)
    params = variables["params"]
    if model.features_only:
        del params["head"], variables["batch_stats"]["head"]
        params.pop("classifier", None)
    elif model.num_classes == 0:
        params.pop("classifier", None)
    elif model.num_classes != found.num_classes or (
        class_names is not None and not found.tells_apart(class_names)
    ):
        _log.warning(
            "%s: the classifier starts anew, with %s classes; that of the weights has %s%s",
            found.title,
            f"{model.num_classes:,}",
            f"{found.num_classes:,}",
            " others" if model.num_classes == found.num_classes else "",
        )
        features = params["head"]["bn"]["scale"].size
        params["classifier"] = _new_classifier(model, features, seed)
    return variables


def _new_classifier(model: EfficientNet, features: int, seed: int) -> Variables:
    classifier = Classifier(model.num_classes, model.dtype, model.param_dtype)
    variables = classifier.init(jax.random.key(seed), jnp.zeros((1, features)))
    return jax.tree.map(np.asarray, variables["params"])
