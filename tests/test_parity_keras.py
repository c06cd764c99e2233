"""The same weights give the same results in keras.applications' EfficientNetV2."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effnetv2_jax import EfficientNet, create_model
from effnetv2_jax.models.efficientnet.names import KERAS
from effnetv2_jax.weights.convert import from_library
from effnetv2_jax.weights.keras_files import read_keras

keras = pytest.importorskip("keras", reason="the reference model is Keras's")
if keras.backend.backend() != "jax":
    pytest.skip("Keras was loaded with another backend than JAX", allow_module_level=True)

pytestmark = pytest.mark.parity

CLASSES = 10
BUILDERS = {
    "b0": keras.applications.EfficientNetV2B0,
    "b1": keras.applications.EfficientNetV2B1,
    "b2": keras.applications.EfficientNetV2B2,
    "b3": keras.applications.EfficientNetV2B3,
    "s": keras.applications.EfficientNetV2S,
    "m": keras.applications.EfficientNetV2M,
    "l": keras.applications.EfficientNetV2L,
}


def name_of(variable: Any) -> str:
    layer, name = variable.path.split("/")[-2:]
    return f"{layer}/{name}"


def randomize(model: Any, gain: float, seed: int = 0) -> None:
    """Draws every variable so that all of them matter: Keras's initial logits are about 1e-3.

    Args:
      gain: of the convolutions; too low, and pictures leave no trace in the logits; too high, and
        the network amplifies rounding errors (Keras computes in float32 at best).
    """
    random = np.random.default_rng(seed)
    for variable in model.weights:  # without the seeds of dropout
        layer, name = name_of(variable).split("/")
        shape = variable.shape
        if name == "kernel":
            fan_in = np.prod(shape[:2] if "dwconv" in layer else shape[:-1])
            value = random.normal(size=shape) * (gain / fan_in) ** 0.5
        elif name in ("gamma", "moving_variance"):
            value = random.uniform(0.5, 1.5, shape)
            if name == "gamma" and layer.endswith("project_bn") and "a_" not in layer:
                value *= 0.3  # keeps what residual connections add up from exploding
        else:
            value = random.normal(size=shape) * 0.2
        variable.assign(value.astype(variable.dtype))


def in_our_names(ours: EfficientNet, theirs: Any) -> dict[str, Any]:
    return from_library(ours, read_keras(theirs), KERAS)


def reference(name: str, height: int, width: int) -> tuple[Any, EfficientNet]:
    """Keras's model with random weights, and ours without them."""
    keras.utils.clear_session()
    model = BUILDERS[name](
        weights=None,
        include_preprocessing=False,
        classes=CLASSES,
        classifier_activation=None,
        input_shape=(height, width, 3),
    )
    randomize(model, gain=2.0 if name.startswith("b") else 1.7)
    return model, create_model(f"efficientnetv2-{name}", num_classes=CLASSES)


def pictures(batch: int, height: int, width: int) -> jax.Array:
    random = np.random.default_rng(1)
    return jnp.asarray(random.normal(size=(batch, height, width, 3)), jnp.float32)


def run_keras(model: Any, images: jax.Array, *, training: bool) -> np.ndarray:
    """Logits; in training the model's moving statistics move as well."""

    @jax.jit
    def run(trainable: Any, others: Any, images: jax.Array) -> Any:
        return model.stateless_call(trainable, others, images, training=training)

    variables = (model.trainable_variables, model.non_trainable_variables)
    values = ([variable.value for variable in group] for group in variables)
    logits, others = run(*values, images)
    for variable, value in zip(model.non_trainable_variables, others, strict=True):
        variable.assign(value)
    return np.asarray(logits)


def relative_error(name: str, height: int, width: int) -> float:
    """Largest difference of logits over the largest logit."""
    theirs, ours = reference(name, height, width)
    images = pictures(2, height, width)
    expected = run_keras(theirs, images, training=False)
    logits = np.asarray(jax.jit(ours.apply)(in_our_names(ours, theirs), images))
    size = np.abs(expected).max()
    assert expected.std() > 0.1, "such small logits hide faults"
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * size, "logits of biases hide faults"
    return float(np.abs(logits - expected).max() / size)


# Even and odd sizes, because TensorFlow's SAME pads them differently at stride 2.
@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("b0", 33, 47),
        ("s", 64, 64),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("b0", 224, 224), ("b1", 64, 64), ("b2", 65, 64), ("b3", 64, 75))
        ),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("s", 384, 384), ("m", 64, 97), ("l", 64, 64))
        ),
    ],
)
def test_logits_equal(name: str, height: int, width: int) -> None:
    assert relative_error(name, height, width) < 1e-4


def test_moving_statistics_equal_after_a_training_step() -> None:
    theirs, ours = reference("b0", 64, 64)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    ours = ours.clone(bn_momentum=0.9, dropout_rate=0.0, stochastic_depth_rate=0.0)
    images = pictures(8, 64, 64)
    before = in_our_names(ours, theirs)
    expected = run_keras(theirs, images, training=True)
    after = in_our_names(ours, theirs)["batch_stats"]
    run = functools.partial(ours.apply, train=True, mutable=["batch_stats"])
    logits, updates = jax.jit(run)(before, images)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    moved = jax.tree_util.tree_leaves_with_path(updates["batch_stats"])
    for (path, leaf), reference_leaf in zip(moved, jax.tree.leaves(after), strict=True):
        error = np.abs(leaf - reference_leaf).max() / np.abs(reference_leaf).max()
        assert error < 1e-5, jax.tree_util.keystr(path)
