"""The order of a run's examples is Grain's, and so is every permutation in it."""

import random

import grain
import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_jax.data import Order
from effnetv2_jax.data.batches.shuffle import shuffled

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = sorted(
    {1, 3, 1000, 2022, 50_000, 1_281_167, 12_700_000, 10**12}
    | {2**power + more for power in (1, 8, 13, 14, 15, 16, 17, 18, 24, 32) for more in (-1, 0, 1)}
)


def grains(index: int, count: int, seed: int) -> int:
    return index_shuffle(index, max_index=count - 1, seed=seed, rounds=4)


@pytest.mark.parametrize("count", COUNTS)
def test_entries_are_those_of_grain(count: int) -> None:
    rng = random.Random(count)
    for seed in (0, 2**32 - 1, rng.getrandbits(32)):
        indices = {0, count // 2, count - 1, *(rng.randrange(count) for _ in range(10))}
        for index in indices:
            assert shuffled(index, count, seed) == grains(index, count, seed)


@given(count=st.integers(1, 2**20) | st.integers(1, 2**40), seed=SEEDS, share=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_any_entry_is_that_of_grain(count: int, seed: int, share: float) -> None:
    index = round(share * (count - 1))
    assert shuffled(index, count, seed) == grains(index, count, seed)


@pytest.mark.parametrize("count", [1, 2, 999, 16_383, 16_384, 16_385, 70_000])
def test_every_number_comes_once(count: int) -> None:
    assert sorted(shuffled(index, count, 7) for index in range(count)) == list(range(count))


def test_a_number_that_the_cipher_lacks() -> None:
    # As Grain has it; see the docstring.
    assert shuffled(2**16, 2**16 + 1, 7) == shuffled(0, 2**16 + 1, 7) == grains(0, 2**16 + 1, 7)


@pytest.mark.parametrize("count", [1, 2, 20, 1000, 30_000])
def test_the_order_is_that_of_grains_endless_shuffle(count: int) -> None:
    seed = int(np.random.SeedSequence(7).generate_state(2, np.uint64)[0] % 2**32)
    endless = grain.MapDataset.range(count).shuffle(seed=seed).repeat()
    order = Order(count, seed=7)
    for position in (0, 1, 2 * count, 3 * count + 5, 10**6):
        assert order.example(position) == endless[position]


def test_repeats_are_neighbours_with_crops_of_their_own() -> None:
    plain, order = Order(7, seed=3), Order(7, seed=3, repeats=3)
    # An epoch has as many positions as there are examples, and then another permutation.
    for epoch in (0, 7):
        expected = [plain.example(epoch + place) for place in (0, 0, 0, 1, 1, 1, 2)]
        assert [order.example(epoch + place) for place in range(7)] == expected
    draws = {order.randomness(position).random() for position in range(3)}
    assert len(draws) == 3


def test_crops_have_the_randomness_of_their_seed_salt_and_position() -> None:
    order = Order(10, seed=5, salts=((3, 0), (8, 2)))
    sequences = {
        2: np.random.SeedSequence(5),
        3: np.random.SeedSequence(5, spawn_key=(0,)),
        9: np.random.SeedSequence(5, spawn_key=(2,)),
    }
    for position, sequence in sequences.items():
        key = [sequence.generate_state(2, np.uint64)[1], position]
        expected = np.random.Generator(np.random.Philox(key=key)).random(4)
        assert order.randomness(position).random(4).tolist() == expected.tolist()


@pytest.mark.parametrize("salts", [((5, 1), (4, 2)), ((5, 1), (5, 2))])
def test_salts_must_rise(salts: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        Order(10, 0, salts)
