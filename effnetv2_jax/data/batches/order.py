"""The endless order of a run's training examples."""

import bisect
import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.data.batches.shuffle import shuffled
from effnetv2_jax.data.sources.labelled import LabelIndex


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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BalancedOrder(Order):
    """An endless sequence in which every class comes equally often.

    Of K classes that have examples, every K positions hold each once, in an order of their own, and
    a class's examples come in epochs of their own, each a permutation. Which example stands at a
    position depends on the fields and the position alone, here too. With repeats, what is said of
    positions holds of groups of so many.
    """

    classes: LabelIndex
    """The examples of every class; those without a label do not come."""

    def example(self, position: int) -> int:
        key = int(self._seeds[self._salt_at(position)][1])
        turn, place = divmod(position // self.repeats, len(self._present))
        label = int(self._present[_permutation(key, turn, 0, len(self._present))[place]])
        members = self.classes.members(label)
        epoch, index = divmod(turn, len(members))
        return int(members[_permutation(key, epoch, label + 1, len(members))[index]])

    @functools.cached_property
    def _present(self) -> NDArray[np.int64]:
        """The classes that have examples."""
        return np.flatnonzero(self.classes.counts)


# Of 1,000 classes of 1,300 examples, all of two epochs: 10 MB.
@functools.lru_cache(maxsize=2048)
def _permutation(key: int, number: int, of: int, count: int) -> NDArray[np.int32]:
    """One of the permutations of a run, by sorting random words.

    Args:
      key: of the run.
      number, of: which; those of different numbers are independent.
      count: of entries.
    """
    # Crops have the same key and a position, which is never the largest number.
    bits = np.random.Philox(
        key=np.array([key, 2**64 - 1], np.uint64),
        counter=np.array([0, number, of, 0], np.uint64),
    )
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int32)
