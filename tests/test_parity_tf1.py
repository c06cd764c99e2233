"""A network of TensorFlow 1 operations, saved as the released ones were, gives the same logits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_weights import compiled

from effnetv2_jax import create_model
from effnetv2_jax.models.efficientnet.names import TF1
from effnetv2_jax.models.efficientnet.scaling import round_channels, round_repeats
from effnetv2_jax.models.efficientnet.variants import Variant, get_variant
from effnetv2_jax.weights.convert import from_library, to_library
from effnetv2_jax.weights.tf1_checkpoint import read_tf1_checkpoint

tf = pytest.importorskip("tensorflow", reason="the reference networks are TensorFlow's")
tf1 = tf.compat.v1
tf.config.set_visible_devices([], "GPU")

pytestmark = pytest.mark.parity

CLASSES = 10
GAINS = {
    "efficientnetv2-s": 1.5,
    "efficientnetv2-m": 1.5,
    "efficientnetv2-l": 1.4,
    "efficientnetv2-xl": 1.35,
    "efficientnet-b0": 1.9,
    "efficientnet-b1": 2.0,
    "efficientnet-b2": 2.0,
    "efficientnet-b3": 2.0,
    "efficientnet-b4": 2.0,
    "efficientnet-b5": 2.0,
    "efficientnet-b6": 1.9,
    "efficientnet-b7": 1.9,
    "efficientnet-b8": 1.9,
}
"""Of the convolutions: squeeze-and-excitation damps, and depth amplifies also rounding errors."""
SMALL = (64, 75)
CASES = [
    ("efficientnetv2-b0", SMALL),
    ("efficientnetv2-b0", (224, 224)),
    ("efficientnetv2-b3", SMALL),
    ("efficientnetv2-s", SMALL),
    ("efficientnet-b0", SMALL),
    ("efficientnet-b0", (224, 224)),
    ("efficientnet-b3", SMALL),
]
SLOW = [
    *(f"efficientnetv2-{size}" for size in ("b1", "b2", "m", "l", "xl")),
    *(f"efficientnet-b{size}" for size in (1, 2, 4, 5, 6, 7, 8)),
]


class Reference:
    """The network with TensorFlow 1's operations, and variables named by its scopes' counters."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.variant: Variant = get_variant(name)
        self.gain = GAINS.get(name, 1.7)

    def __call__(self, images: Any) -> Any:
        """Logits, for images `[B, H, W, 3]`."""
        with tf1.variable_scope(self.name):
            with tf1.variable_scope("stem"):
                x = self.conv(images, self.channels(self.variant.stem), 3, 2)
                x = tf.nn.silu(self.norm(x))
            block = 0
            for stage in self.variant.stages:
                for repeat in range(round_repeats(stage.repeats, self.variant.depth)):
                    with tf1.variable_scope(f"blocks_{block}"):
                        x = self.block(x, stage, repeat)
                    block += 1
            with tf1.variable_scope("head"):
                x = tf.nn.silu(self.norm(self.conv(x, self.channels(self.variant.head), 1)))
                x = tf.reduce_mean(x, [1, 2])
                with tf1.variable_scope(None, "dense"):
                    kernel = self.kernel("kernel", (x.shape[-1], CLASSES), x.shape[-1])
                    return x @ kernel + self.vector("bias", CLASSES)

    def block(self, inputs: Any, stage: Any, repeat: int) -> Any:
        stride = 1 if repeat else stage.stride
        outputs = self.channels(stage.outputs)
        hidden = inputs.shape[-1] * stage.expand
        # Keeps what residual connections add up from exploding.
        last = 0.3 if repeat else 1.0
        x = inputs
        if stage.operator == "mbconv":
            if stage.expand > 1:
                x = tf.nn.silu(self.norm(self.conv(x, hidden, 1)))
            x = tf.nn.silu(self.norm(self.depthwise(x, stage.kernel, stride)))
            x *= self.gate(x, max(1, int(inputs.shape[-1] * stage.se_ratio)))
            x = self.norm(self.conv(x, outputs, 1), last)
        elif stage.expand > 1:
            x = tf.nn.silu(self.norm(self.conv(x, hidden, stage.kernel, stride)))
            x = self.norm(self.conv(x, outputs, 1), last)
        else:
            x = tf.nn.silu(self.norm(self.conv(x, outputs, stage.kernel, stride), last))
        return x + inputs if stride == 1 and inputs.shape[-1] == outputs else x

    def gate(self, x: Any, narrow: int) -> Any:
        with tf1.variable_scope("se"):
            mean = tf.reduce_mean(x, [1, 2], keepdims=True)
            inner = tf.nn.silu(self.conv(mean, narrow, 1, bias=True))
            return tf.sigmoid(self.conv(inner, x.shape[-1], 1, bias=True))

    def conv(self, x: Any, outputs: int, size: int, stride: int = 1, bias: bool = False) -> Any:
        with tf1.variable_scope(None, "conv2d"):
            shape = (size, size, x.shape[-1], outputs)
            y = tf.nn.conv2d(x, self.kernel("kernel", shape, size**2 * shape[2]), stride, "SAME")
            return y + self.vector("bias", outputs) if bias else y

    def depthwise(self, x: Any, size: int, stride: int) -> Any:
        with tf1.variable_scope(None, "depthwise_conv2d"):
            kernel = self.kernel("depthwise_kernel", (size, size, x.shape[-1], 1), size**2)
            return tf1.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "SAME")

    def norm(self, x: Any, scale: float = 1.0) -> Any:
        channels = x.shape[-1]
        with tf1.variable_scope(None, "tpu_batch_normalization"):
            gamma = self.positive("gamma", channels, scale)
            beta = self.vector("beta", channels)
            mean = self.vector("moving_mean", channels, trainable=False)
            variance = self.positive("moving_variance", channels, trainable=False)
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

    def kernel(self, name: str, shape: tuple[int, ...], fan_in: int) -> Any:
        normal = tf1.random_normal_initializer(0, (self.gain / fan_in) ** 0.5)
        return tf1.get_variable(name, shape, initializer=normal)

    def vector(self, name: str, length: int, trainable: bool = True) -> Any:
        normal = tf1.random_normal_initializer(0, 0.2)
        return tf1.get_variable(name, (length,), initializer=normal, trainable=trainable)

    def positive(self, name: str, length: int, scale: float = 1.0, trainable: bool = True) -> Any:
        uniform = tf1.random_uniform_initializer(0.5 * scale, 1.5 * scale)
        return tf1.get_variable(name, (length,), initializer=uniform, trainable=trainable)

    def channels(self, count: int) -> int:
        return round_channels(count, self.variant.width, self.variant.rounding_floor)


def save_and_run(
    name: str, images: np.ndarray, prefix: Path
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Saves a random network as the released ones were; logits and arrays of its averages."""
    with tf.Graph().as_default():
        tf1.set_random_seed(0)
        logits = Reference(name)(tf.constant(images))
        variables = tf1.global_variables()
        averages = tf.train.ExponentialMovingAverage(0.9).variables_to_restore(variables)
        for key, v in averages.items():  # As `apply`, without its slow conditions.
            tf1.get_variable(key, initializer=v.initial_value, trainable=False)
        step = tf1.train.create_global_step()
        # Slots of all would double the files.
        trained = [v for v in tf1.trainable_variables() if v.shape.rank == 1][:100]
        tf1.train.RMSPropOptimizer(0.1, momentum=0.9).apply_gradients(
            [(tf.zeros_like(v), v) for v in trained], step
        )
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            # Other draws than those that the averages started from.
            session.run([v.initializer for v in variables])
            tf1.train.Saver().save(session, str(prefix), write_meta_graph=False)
            raw = session.run(logits)
            # As the authors evaluate: each variable from its average.
            tf1.train.Saver(averages).restore(session, str(prefix))
            expected = session.run(logits)
            arrays = dict(zip([v.op.name for v in variables], session.run(variables)))
    assert np.abs(raw - expected).max() > 0.1 * np.abs(expected).max(), "averages are raw values"
    return expected, {key.removeprefix(f"{name}/"): array for key, array in arrays.items()}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(pytest.param(name, size, id=f"{name}-{size[0]}px") for name, size in CASES),
        *(pytest.param(name, SMALL, id=name, marks=pytest.mark.long) for name in SLOW),
    ],
)
def test_logits_equal_and_weights_return_bit_for_bit(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    # Of unlike contrasts, since noise of one kind has much the same mean after many convolutions.
    images *= np.reshape([0.5, 2], (2, 1, 1, 1)).astype(np.float32)
    expected, arrays = save_and_run(name, images, tmp_path / "model.ckpt")
    read = read_tf1_checkpoint(tmp_path, outermost=TF1.outermost)
    shutil.rmtree(tmp_path)  # Gigabytes, which pytest would keep.
    assert read.keys() == arrays.keys()
    for key, array in read.items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)

    model = create_model(name, num_classes=CLASSES)
    variables = from_library(model, read, TF1)
    for key, array in to_library(model, variables, TF1).items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)

    logits = np.asarray(compiled(model)(variables, images))
    largest = np.abs(expected).max()
    assert 0.1 < expected.std() < 10, "logits of another size hide faults"
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * largest, "logits of biases hide faults"
    assert np.abs(logits - expected).max() < 1e-4 * largest
