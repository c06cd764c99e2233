"""Losses and hits of one and of several labels, against one-hot targets and scikit-learn."""

import functools
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from sklearn import metrics

from effnetv2_jax.ops.losses import LOSSES, hits, sigmoid_cross_entropy, softmax_cross_entropy

Draw = tuple[jax.Array, jax.Array, NDArray[np.bool_]]


def draw(seed: int, batch: int = 12, classes: int = 7, most: int = 4) -> Draw:
    """Logits `[B, K]`, labels `[B, L]` of 0 to L classes, and the multi-hot `[B, K]`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, classes)).astype(np.float32) * 3
    labels = np.full((batch, most), -1, np.int32)
    for row, count in zip(labels, rng.integers(0, most + 1, batch)):
        row[:count] = rng.permutation(classes)[:count]
    labels = rng.permuted(labels, axis=1)  # The places of -1 mean nothing.
    hot = (np.arange(classes) == labels[:, :, None]).any(1)
    return jnp.asarray(logits), jnp.asarray(labels), hot


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.1]))
def test_softmax_is_that_of_labels_in_equal_shares(seed: int, smoothing: float) -> None:
    logits, labels, hot = draw(seed)
    count = hot.sum(1, keepdims=True)
    targets = (1 - smoothing) * hot / np.maximum(count, 1) + smoothing / hot.shape[1]
    expected = -(targets * jax.nn.log_softmax(logits)).sum(1) * (count[:, 0] > 0)
    found = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.1]))
def test_sigmoid_is_that_of_every_class_by_itself(seed: int, smoothing: float) -> None:
    logits, labels, hot = draw(seed)
    targets = (1 - smoothing) * hot + smoothing / 2
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    expected = -(targets * yes + (1 - targets) * no).sum(1)
    found = sigmoid_cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_losses_are_scikit_learns() -> None:
    logits, labels, hot = draw(0)
    some = hot.any(1)
    logits, labels, hot = logits[some], labels[some], hot[some]
    classes = np.arange(7)
    shares = hot / hot.sum(1, keepdims=True)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    # Its log loss takes one label; of several, each weighs its share.
    expected = sum(
        shares[row, label] * metrics.log_loss([label], probabilities[row : row + 1], labels=classes)
        for row, label in zip(*hot.nonzero())
    )
    found = softmax_cross_entropy(logits, labels)
    assert float(found.sum()) == pytest.approx(expected, rel=1e-5)

    yes = np.asarray(jax.nn.sigmoid(logits), np.float64)
    found = sigmoid_cross_entropy(logits, labels)
    for row, value in enumerate(found):
        expected = sum(
            metrics.log_loss([hot[row, k]], [[1 - yes[row, k], yes[row, k]]], labels=[0, 1])
            for k in classes
        )
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_accuracy_is_scikit_learns() -> None:
    logits, labels, hot = draw(1, batch=200, classes=20)
    best = jax.lax.top_k(jnp.asarray(logits), 5)[1]
    right = np.asarray(hits(best, jnp.asarray(labels)))
    # Top-1 among several labels: the precision of the single best class.
    ones = np.eye(20, dtype=int)[np.asarray(best[:, 0])]
    assert right[:, 0].mean() == pytest.approx(
        metrics.precision_score(hot, ones, average="samples", zero_division=0)
    )
    some = hot.any(1)
    first = np.array([row[row >= 0][0] for row in labels[some]])
    single = np.asarray(hits(best[some], jnp.asarray(first)[:, None])).any(1).mean()
    expected = metrics.top_k_accuracy_score(first, logits[some], k=5, labels=np.arange(20))
    assert single == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_room_for_more_labels_changes_nothing(name: str) -> None:
    logits, labels, _ = draw(2)
    loss = LOSSES[name]
    single = loss(logits, labels[:, :1], label_smoothing=0.1)
    padded = jnp.pad(labels[:, :1], ((0, 0), (0, 3)), constant_values=-1)
    np.testing.assert_allclose(loss(logits, padded, label_smoothing=0.1), single, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_and_classes_left_out_cost_nothing(name: str) -> None:
    logits, labels, _ = draw(4)
    grads = jax.grad(lambda x: LOSSES[name](x, labels, label_smoothing=0.1).sum())(logits * 30)
    assert np.isfinite(grads).all()
    wide = jnp.concatenate([logits, jnp.full((12, 3), -jnp.inf)], 1)
    np.testing.assert_allclose(LOSSES[name](wide, labels), LOSSES[name](logits, labels), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_head_of_21843_classes_needs_no_one_hot_batch(name: str) -> None:
    """Beside logits and their gradient there is room for one more array of their size, not two."""
    batch, classes = 128, 21_843
    logits = jax.ShapeDtypeStruct((batch, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch, 32), jnp.int32)
    step = jax.grad(lambda x, y: LOSSES[name](x, y, label_smoothing=0.1).mean())
    memory = jax.jit(step).lower(logits, labels).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 1.1 * batch * classes * 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_classes(smoothing: float) -> None:
    logits, labels, hot = draw(5)
    weights = np.array([0.5, 1, 2, 0, 3, 1, 10], np.float32)
    plain = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    means = (hot * weights).sum(1) / np.maximum(hot.sum(1), 1)
    stated: Any = {"label_smoothing": smoothing, "class_weights": jnp.array(weights)}
    found = softmax_cross_entropy(logits, labels, **stated)
    np.testing.assert_allclose(found, plain * means, rtol=1e-5)

    targets = (1 - smoothing) * hot + smoothing / 2
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    expected = -(weights * targets * yes + (1 - targets) * no).sum(1)
    found = sigmoid_cross_entropy(logits, labels, **stated)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1, 2, 0, 3, 1, 10], np.float32)])
def test_a_mix_of_losses_is_the_loss_of_mixed_targets(weights: np.ndarray | None) -> None:
    """As mixup and CutMix need it: several labels of both examples, some of them in common."""
    logits, labels, hot = draw(6)
    _, partners, partner_hot = draw(7)
    own = np.linspace(0, 1, 12, dtype=np.float32)
    loss = functools.partial(
        sigmoid_cross_entropy,
        label_smoothing=0.1,
        class_weights=None if weights is None else jnp.array(weights),
    )
    mixed = own * loss(logits, labels) + (1 - own) * loss(logits, partners)
    targets = own[:, None] * hot + (1 - own[:, None]) * partner_hot
    targets = 0.9 * targets + 0.05
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = targets if weights is None else weights * targets
    expected = -(positive * yes + (1 - targets) * no).sum(1)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-5)
