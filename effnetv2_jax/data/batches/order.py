"""The endless order of a run's training examples."""

import bisect
from collections.abc import Sequence

import numpy as np
from grain.experimental import index_shuffle


class Order:
    """An endless row of epochs, each a permutation of its own, with randomness for the crops.

    What stands in it is `grain.MapDataset.range(count).shuffle(seed=...).repeat()[position]`, whose
    accounts of itself would take a twentieth of all the time that a picture takes.
    """

    def __init__(self, count: int, seed: int, salts: Sequence[tuple[int, int]]) -> None:
        """Of `count` examples; see `pipeline.train_batches` for the rest."""
        self._count = count
        self._starts = [start for start, _ in salts]
        if self._starts != sorted(set(self._starts)):
            raise ValueError(f"the positions of the salts {salts} must rise")
        # A spawn key, since SeedSequence takes [seed, 0] and [seed] to be the same.
        sequences = [np.random.SeedSequence(seed)] + [
            np.random.SeedSequence(seed, spawn_key=(salt,)) for _, salt in salts
        ]
        states = [sequence.generate_state(2, np.uint64) for sequence in sequences]
        self._shuffle_seeds = [int(order % 2**32) for order, _ in states]
        self._crop_keys = [crop for _, crop in states]

    def example(self, position: int) -> int:
        """Which example of the source stands there."""
        epoch, index = divmod(position, self._count)
        seed = (self._shuffle_seeds[self._part(position)] + epoch) % 2**32
        return index_shuffle(index, max_index=self._count - 1, seed=seed, rounds=4)

    def randomness(self, position: int) -> np.random.Generator:
        """Where its crop comes from."""
        key = [self._crop_keys[self._part(position)], position]
        return np.random.Generator(np.random.Philox(key=key))

    def _part(self, position: int) -> int:
        """How many salts have begun."""
        return bisect.bisect_right(self._starts, position)
