"""Models with weights, in one line."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.libraries import timm_network
from effnetv2_jax.models.protocol import Family, Model, gives_features
from effnetv2_jax.models.registry import family_of, family_of_model, list_models, model_of
from effnetv2_jax.models.shapes import abstract_image, abstract_variables
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.weights.convert import VariablePath, Variables
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.find import find_weights, tags_of
from effnetv2_jax.weights.found import Found
from effnetv2_jax.weights.networks import stated_fields

_log = logging.getLogger(__name__)


def load_pretrained(
    name: str | None, weights: Any = None, *, num_classes: int | None = None, **overrides: Any
) -> tuple[Any, Variables]:
    """A model with trained weights.

    Args:
      name: one of `list_models()`; or timm's name of the network, such as `tf_efficientnetv2_s` or
        `efficientnetv2_s`, which also says how it computes; None takes what the weights say they
        are for.
      weights: one of
        a tag of the model's published weights, such as `in1k` (ImageNet), `in21k` (ImageNet21k) or
        `in21k-ft1k` (that, fine-tuned on ImageNet), from an installed package where one brings
        them, and else from the Hugging Face Hub;
        `hub:OWNER/REPO[@REVISION]` on the Hugging Face Hub, in timm's format or our own;
        the path of a file: timm's, torchvision's or EfficientNet-PyTorch's `.safetensors` or
        `.pth`, Keras's `.keras` or `.h5`, the authors' TensorFlow checkpoint;
        the path of a folder: a run's `--workdir` (or `workdir:PATH`; averaged weights are
        preferred), or what `save_pretrained` wrote;
        a live Keras model, or a state dict.
        None takes those of the tag in timm's name, as in `tf_efficientnetv2_s.in21k`.
      num_classes: None keeps the weights' head; another number than theirs starts a new one, and
        says so; 0 leaves it out.
      **overrides: fields of the model, as for `create_model`. With other `input_channels` than the
        weights' their first kernel is adapted as timm does it, and that is said. `padding` and
        `bn_epsilon` have to be stated for a bare state dict of timm's of which they cannot be told:
        the authors' networks and those without `tf_` have the same arrays.

    Returns:
      The model, a Flax Linen module, with the weights' `preprocessing` and `class_names` as far as
      known, and its variables, `params` and whatever other collections it has, on the default
      device. It computes in float32 unless `dtype` is among the overrides.

    Raises:
      WeightsError: there are no such weights, they are damaged, or do not fit the model; the
        message lists missing, unexpected and wrongly shaped arrays.
      ValueError: there is no such model.
      TypeError: the model has no such field.
    """
    if name is not None and name not in list_models() and (known := timm_network(name)):
        if weights is None and "." in name:
            weights = f"hub:timm/{name}"
        _, theirs = known
        name, overrides = theirs.name, stated_fields(theirs) | overrides
    if weights is None:
        of_name = f" of {name}: {tags_of(name)}" if name else ": a tag"
        raise WeightsError(f"name the weights{of_name}, hub:OWNER/REPO or a path")
    found = find_weights(weights, name=name)
    if name not in (None, found.name):
        raise WeightsError(f"{found.title} has weights of {found.name}, not of {name}")
    model = model_for(found, num_classes=num_classes, **overrides)
    variables = fit(found, model, strict=num_classes is None)
    return model, jax.tree.map(jnp.asarray, variables)


def model_for(found: Found, *, num_classes: int | None = None, **overrides: Any) -> Any:
    """The model that weights are for; see `load_pretrained`."""
    assert found.name is not None
    like = family_of(found.name).config(name=found.name)
    asked = {field: overrides[field] for field in like.architecture() if field in overrides}
    config = found.network(dataclasses.replace(like, **asked))
    classes = found.num_classes if num_classes is None else num_classes
    fields: dict[str, Any] = {}
    channels = overrides.get("input_channels", found.channels)
    fields["input_channels"] = channels
    if "preprocessing" not in overrides:
        if found.preprocessing is not None:
            fields["preprocessing"] = found.preprocessing.for_channels(channels)
        elif doubt := found.doubt():
            _log.warning("%s", doubt)
    if classes == found.num_classes:
        fields["class_names"] = found.class_names
    return model_of(config, num_classes=classes, **(fields | overrides))


def fit(
    found: Found,
    model: Model,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Variables:
    """A model's variables from weights, as NumPy arrays.

    Args:
      class_names: that the model has to tell apart; None looks at their number alone.
      seed: of a head that starts anew because it tells other classes apart.
      strict: whether a head of which the library knows nothing is an error; else it is left out.

    Raises:
      WeightsError: the weights do not fit the model.
    """
    found.check(model.config)
    whole = _whole(model, found.num_classes)
    if gives_features(model) and found.lacks(whole):
        whole = model
    variables = found.variables(whole, strict=strict and not gives_features(model))
    others = class_names is not None and not found.tells_apart(class_names)
    if model.num_classes == found.num_classes and not (others or gives_features(model)):
        return variables
    abstract, family = abstract_variables(model), family_of_model(model)
    given, wanted = named_leaves(variables), named_leaves(abstract)
    head = [path for path in wanted if _in_head(family, path)]
    new = {}
    if head and (others or model.num_classes != found.num_classes):
        _log.warning(
            "%s: the classifier starts anew, with %s classes; that of the weights has %s%s",
            found.title,
            f"{model.num_classes:,}",
            f"{found.num_classes:,}",
            " others" if model.num_classes == found.num_classes else "",
        )
        new = dict(zip(head, _initial(model, head, seed)))
    kept = wanted.keys() - new.keys()
    lacking = [
        path for path in kept if path not in given or given[path].shape != wanted[path].shape
    ]
    left = [path for path in given.keys() - wanted.keys() if not _in_head(family, path)]
    if stray := sorted(map("/".join, lacking if gives_features(model) else lacking + left)):
        raise WeightsError(
            f"{found.title}: with {model.num_classes} classes in place of {found.num_classes} the "
            f"model differs beyond its head {'/'.join(family.head)}, in {', '.join(stray[:3])}"
        )
    leaves = [new[path] if path in new else given[path] for path in wanted]
    fitted: Variables = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
    return fitted


def _whole(model: Model, num_classes: int) -> Any:
    """The model with all that weights of that many classes have."""
    features = {"features_only": False} if gives_features(model) else {}
    return model.clone(num_classes=num_classes, **features)


def _in_head(family: Family, path: VariablePath) -> bool:
    return path[1 : 1 + len(family.head)] == family.head


def _initial(model: Model, paths: list[VariablePath], seed: int) -> list[np.ndarray]:
    """Some of the variables that a model begins with."""
    images = abstract_image(model)

    @jax.jit  # Which computes no others.
    def draw(key: jax.Array) -> list[jax.Array]:
        leaves = named_leaves(model.lazy_init(key, images, train=False))
        return [leaves[path] for path in paths]

    return [np.asarray(leaf) for leaf in draw(jax.random.key(seed))]
