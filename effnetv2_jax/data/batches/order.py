"""The endless order of a run's training examples."""

import bisect
import dataclasses
import functools

import numpy as np

from effnetv2_jax.data.batches.shuffle import shuffled


@dataclasses.dataclass(frozen=True)
class Order:
    """An endless sequence of epochs, each a permutation of its own, with randomness for the crops.

    Which example stands at a position, and its randomness, depend on these fields and the position
    alone. Without repeats the sequence is that of Grain's
    `MapDataset.range(count).shuffle(seed=...).repeat()`.

    Raises:
      ValueError: at once, if the positions of the salts do not rise.
    """

    count: int
    """Examples of the source, at least 1."""
    seed: int
    """Of the run."""
    salts: tuple[tuple[int, int], ...] = ()
    """Pairs of a position and a salt, both from 0, the positions rising: from each position to the
    next, order and crops are those of (seed, salt), and before the first those of the seed alone.
    """
    repeats: int = 1
    """So many neighbours are one example, with crops of their own. An epoch has `count` positions
    all the same, and leaves out the rest of its permutation."""

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.salts]
        if starts != sorted(set(starts)):
            raise ValueError(f"the positions of the salts {self.salts} must rise")

    def example(self, position: int) -> int:
        """The index, in the source, of the example at a position."""
        epoch, index = divmod(position, self.count)
        seed = (self._seeds[self._salt_at(position)][0] + epoch) % 2**32
        return shuffled(index // self.repeats, self.count, seed)

    def randomness(self, position: int) -> np.random.Generator:
        """The generator for the crop of the example at a position."""
        return np.random.Generator(self._bits(position))

    def replacements(self, position: int) -> np.random.Generator:
        """The generator that draws what replaces an unreadable example at a position."""
        return np.random.Generator(self._bits(position).jumped())

    def _bits(self, position: int) -> np.random.Philox:
        crop_key = self._seeds[self._salt_at(position)][1]
        # Rounded to float64, as NumPy rounds a list of a uint64 and an int: crops stay what they
        # have been since the first run.
        key = np.array([crop_key, position], np.float64).astype(np.uint64)
        return np.random.Philox(key=key)

    def _salt_at(self, position: int) -> int:
        """How many salts have started by then."""
        return bisect.bisect_right(self._starts, position)

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.salts]

    @functools.cached_property
    def _seeds(self) -> list[tuple[int, np.uint64]]:
        """The shuffle's seed and the crops' key, before the first salt and from each on."""
        # Spawn keys, because SeedSequence takes [seed, 0] and [seed] to be the same.
        keys = [(), *((salt,) for _, salt in self.salts)]
        states = [
            np.random.SeedSequence(self.seed, spawn_key=key).generate_state(2, np.uint64)
            for key in keys
        ]
        return [(int(shuffle % 2**32), crop) for shuffle, crop in states]
