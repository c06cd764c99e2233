"""Average precision is scikit-learn's, and so is an evaluation's."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from effnetv2_jax.config.experiment import EvaluationConfig
from effnetv2_jax.data import Record, open_source
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.average_precision import average_precision
from effnetv2_jax.train.evaluate import Answers, Evaluated, Scores, evaluate, summary
from effnetv2_jax.train.evaluate_weights import results_table


def several(rng: np.random.Generator, count: int, classes: int, most: int) -> np.ndarray:
    """Labels of `count` examples, each of them different: int32 [count, most]."""
    rows = np.full((count, most), -1, np.int32)
    for row in rows:
        its = rng.permutation(classes)[: rng.integers(0, most + 1)]
        row[: len(its)] = its
    return rows


def multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return (labels[:, :, None] == np.arange(classes)).any(1)


@given(
    scores=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.integers(1, 5)),
        # Few values, so that there are equal scores.
        elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0]) | st.floats(-9, 9, width=32),
    ),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_is_that_of_scikit_learn(scores: np.ndarray, seed: int) -> None:
    count, classes = scores.shape
    labels = several(np.random.default_rng(seed), count, classes, min(3, classes))
    found = average_precision(scores, labels)
    truth = multi_hot(labels, classes)
    for label in range(classes):
        if truth[:, label].any():
            expected = average_precision_score(truth[:, label], scores[:, label])
            assert found[label] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(found[label])


@dataclasses.dataclass
class Several:
    """A source of several labels; an evaluation step of the test's own looks only at these."""

    labels: np.ndarray
    name: str = "several"
    exif: bool = False
    fingerprint: str = ""
    class_names: tuple[str, ...] = tuple("abcdefg")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        record = open_source(tiny.experiment().data, "eval")[0]
        its = tuple(int(label) for label in self.labels[index] if label >= 0)
        encoded = b"no picture" if index == 4 else record.encoded
        return Record(str(index), encoded, its)


@pytest.mark.parametrize("batch_size", [8, 16])
def test_an_evaluation_is_that_of_scikit_learn(batch_size: int) -> None:
    """The last batch is padded, a picture unreadable, an example without labels, a class absent."""
    rng = np.random.default_rng(0)
    labels = several(rng, 21, 6, 3)
    labels[7] = -1
    scores = rng.normal(size=(21, 7)).astype(np.float32)
    seen = iter(range(0, 100, batch_size))

    def step(weights: object, batch: Mapping[str, jax.Array]) -> Evaluated:
        start = next(seen)
        rows = np.zeros((batch_size, 7), np.float32)
        rows[: len(scores[start : start + batch_size])] = scores[start : start + batch_size]
        mask = batch["mask"]
        found = Scores(mask.sum() * 2.0, jax.numpy.array(rows), batch["labels"], mask)
        return Evaluated({"raw": found}, Answers(*[mask] * len(Answers._fields)))

    experiment = tiny.experiment(
        data=dataclasses.replace(tiny.experiment().data, max_labels=3),
        evaluation=EvaluationConfig(
            image_size=32, batch_size=batch_size, metric="average_precision"
        ),
    )
    source = Several(labels)
    preprocessing = Preprocessing(image_size=32)
    mesh = make_mesh(jax.devices()[:1])
    result = evaluate(step, {"raw": {}}, source, experiment, preprocessing, mesh)
    kept = np.arange(21) != 4
    truth = multi_hot(labels, 7)[kept]
    expected = average_precision_score(truth[:, :6], scores[kept, :6], average="macro")
    assert result == {
        "raw_map": pytest.approx(expected, abs=1e-12),
        "raw_loss": pytest.approx(2.0),
        "examples": 20,
        "absent_classes": 1,
        "unreadable": 1,
        "available": 21,
    }
    said = summary(result)
    assert said == (
        "20 of 21 images | 1 unreadable | 1 classes without an example left out | "
        f"raw mAP {expected:.2%}"
    )
    assert "top-1" not in results_table({"several": result})
    assert f"{expected:.2%}" in results_table({"several": result})
