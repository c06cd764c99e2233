"""Classes in equal shares: the order of the examples, and what is said of it."""

import dataclasses
import itertools
import pathlib
import pickle
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from test_data_report import many, touch

from effnetv2_jax.config.checks import check
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import ProbeConfig
from effnetv2_jax.data import TrainExamples, make_batches, open_source
from effnetv2_jax.data.batches.order import BalancedOrder
from effnetv2_jax.data.sources.label_scan import label_index
from effnetv2_jax.data.sources.labelled import LabelIndex
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.balance import balance_of, balanced_weights

LABELS = st.lists(
    st.lists(st.integers(0, 4), max_size=3, unique=True).map(tuple), min_size=1, max_size=40
).filter(any)


def order(labels: Sequence[tuple[int, ...]], seed: int = 0, repeats: int = 1) -> BalancedOrder:
    return BalancedOrder(len(labels), seed, (), repeats, classes=LabelIndex(labels, 5))


@given(labels=LABELS, seed=st.integers(0, 2**32), start=st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_shares_are_equal_and_every_example_comes_in_its_turn(
    labels: list[tuple[int, ...]], seed: int, start: int
) -> None:
    found = order(labels, seed=seed)
    members = {k: {n for n, its in enumerate(labels) if k in its} for k in range(5)}
    present = [k for k in range(5) if members[k]]
    turns = max(map(len, members.values()))
    first = start * turns * len(present)
    drawn = [found.example(first + place) for place in range(turns * len(present))]
    # Of every group of K positions each class has one: there is a perfect matching.
    for begin in range(0, len(drawn), len(present)):
        group = drawn[begin : begin + len(present)]
        assert any(
            all(label in labels[example] for label, example in zip(turn, group))
            for turn in itertools.permutations(present)
        )
    # The largest class is seen as a whole.
    largest = max(present, key=lambda k: len(members[k]))
    assert members[largest] <= {*drawn}
    assert all(labels[example] for example in drawn)


def test_single_labels_have_equal_shares_and_examples_differ_by_one() -> None:
    labels = [(0,)] * 50 + [(1,)] * 7 + [(3,)]
    drawn = [order(labels).example(position) for position in range(3000)]
    assert Counter(labels[example] for example in drawn) == {(0,): 1000, (1,): 1000, (3,): 1000}
    visits = Counter(drawn)
    assert {visits[n] for n in range(50)} == {20}
    assert {visits[n] for n in range(50, 57)} == {142, 143}
    # Another seed, another order; within a class, too.
    other = [order(labels, seed=1).example(position) for position in range(3000)]
    assert other != drawn
    assert [n for n in other if n < 50] != [n for n in drawn if n < 50]


def test_salts_and_repeats() -> None:
    labels = [(n % 3,) for n in range(30)]
    plain, repeated = order(labels), order(labels, repeats=2)
    assert [repeated.example(n) for n in range(6)] == [plain.example(n // 2) for n in range(6)]
    salted = BalancedOrder(30, 0, ((60, 1),), classes=LabelIndex(labels, 5))
    assert [salted.example(n) for n in range(60)] == [plain.example(n) for n in range(60)]
    assert [salted.example(n) for n in range(60, 90)] != [plain.example(n) for n in range(60, 90)]


def test_the_order_stays_what_it_is() -> None:
    labels = [(0,)] * 6 + [(1,)] * 2 + [(2, 4)] * 3
    found = pickle.loads(pickle.dumps(order(labels, seed=7)))
    expected = [1, 10, 7, 10, 6, 9, 9, 2, 3, 8, 6, 8]
    assert [found.example(position) for position in range(12)] == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_the_same_from_any_start_and_on_any_processes(processes: int) -> None:
    source = open_source(tiny.experiment().data, "train")
    index = label_index(source)
    whole = BalancedOrder(len(source), 3, classes=index)

    def labels(first: int, count: int) -> list[int]:
        examples = TrainExamples(
            order=whole,
            data=tiny.experiment().data,
            preprocessing=Preprocessing(image_size=32),
            batch_size=12,
            first_example=first,
        )
        shares = [
            make_batches(source, examples, process_index=n, process_count=processes)
            for n in range(processes)
        ]
        found = [
            label
            for _ in range(count)
            for share in shares
            for label in next(share)["labels"][:, 0].tolist()
        ]
        for share in shares:
            share.close()
        return found

    through = labels(0, 3)
    assert through == labels(0, 1) + labels(12, 2)
    assert Counter(through) == dict.fromkeys(range(6), 6)


def test_the_labels_of_a_source_that_has_to_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = open_source(
        dataclasses.replace(tiny.experiment().data, eval_split="test[:30]"), "eval"
    )
    expected = [source[n].labels for n in range(30)]
    for _ in range(2):  # Read, and then from the cache.
        index = label_index(source)
        assert index.counts.tolist() == [sum(k in its for its in expected) for k in range(6)]
        assert index.members(2).tolist() == [n for n in range(30) if 2 in expected[n]]
    (kept,) = (tmp_path / "effnetv2_jax" / "labels").iterdir()
    kept.write_bytes(b"broken")
    assert label_index(source).counts.sum() == 30


def test_weights_are_those_of_the_formulas() -> None:
    # PyTorch's documentation of pos_weight has the second.
    labels = np.repeat([0, 1, 2], [50, 30, 5])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights("softmax", [50, 30, 5, 0], 85) == pytest.approx([*expected, 1])
    assert balanced_weights("sigmoid", [50, 10, 0, 100], 100) == pytest.approx([1, 9, 1, 1])


def test_what_is_said(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *many("a", 60), *many("b", 12))
    data = dataclasses.replace(tiny.experiment().data, source="folder", path=str(tmp_path))
    source = open_source(data, "train")
    sampled = dataclasses.replace(data, sampling="balanced")
    (said,) = balance_of(tiny.experiment(data=sampled), source).lines
    assert said == (
        "balanced sampling: each of 2 classes gets the same share; an epoch of 65 examples shows "
        "2.95 times one of b (11) and 0.602 times one of a (54), and metrics of training are of "
        "these"
    )
    balance = balance_of(tiny.experiment(data=data, balanced_loss=True), source)
    assert balance.weights == pytest.approx([65 / 108, 65 / 22])
    assert balance.lines[0] == (
        "class weights (balanced, N / (K n)): from 0.602 for a to 2.95 for b; weighted_loss is "
        "minimised, loss and evaluation do not weigh"
    )
    stated = balance_of(tiny.experiment(data=data, class_weights=(("b", 3.0),)), source)
    assert (stated.weights, stated.sampled) == ([1, 3], None)
    with pytest.raises(ConfigError, match="there is no class 'B'"):
        balance_of(tiny.experiment(data=data, class_weights=(("B", 3.0),)), source)
    with pytest.raises(ConfigError, match="the same imbalance twice"):
        check(tiny.experiment(data=sampled, balanced_loss=True))


def test_a_head_that_is_fitted_alone_is_not_balanced() -> None:
    probe = tiny.experiment(init="in1k", epochs=0.0, probe=ProbeConfig(views=1))
    check(probe)
    with pytest.raises(ConfigError, match="the head that probe fits counts all pictures alike"):
        check(dataclasses.replace(probe, balanced_loss=True))
