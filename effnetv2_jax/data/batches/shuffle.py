"""Permutations of a range, of which any entry can be computed by itself.

They are Grain's (`grain.experimental.index_shuffle` with 4 rounds), so that a run continues in the
order it began with. Importing Grain would import JAX, and double the memory and the start-up time
of each decoding process.

The algorithm: 4 rounds of the Simon block cipher (https://eprint.iacr.org/2013/404) permute the
numbers of an even count of bits, at least 16; a result outside the range is encrypted again until
it is inside (cycle walking, https://www.cs.ucdavis.edu/~rogaway/papers/subset.pdf). The round keys
are the words that C++'s `std::seed_seq` makes of the seed.
"""

import functools
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Value = TypeVar("_Value", int, NDArray[np.int64])

_ROUNDS = 4
_MIN_BITS = 16
_LONG_WALK = 4
"""With more encryptions for each entry, on average, the whole permutation is computed at once."""
_WORD = 2**32 - 1


def shuffled(index: int, count: int, seed: int) -> int:
    """Entry `index` of a permutation of the numbers from 0 to `count - 1`.

    Where `count` is 2**k + 1 for an even k of 16 or more, the cipher's numbers do not include the
    last index, which is taken for the first: one number occurs twice and another is missing. Grain
    does the same.

    Args:
      index: from 0 to `count - 1`.
      count: at least 1.
      seed: from 0 to 2**32 - 1.
    """
    if count == 1:
        return 0
    width = -(-max(_MIN_BITS, (count - 2).bit_length()) // 2)
    if 4**width > _LONG_WALK * count:
        return int(_permutation(count, width, seed)[index])
    keys = _round_keys(seed)
    while (index := _encrypt(index, keys, width)) >= count:
        pass
    return index


# Several, since a batch may hold many epochs of a few examples; at most 1 MB.
@functools.lru_cache(maxsize=32)
def _permutation(count: int, width: int, seed: int) -> NDArray[np.uint16]:
    """All entries: each pass doubles the walks that have not ended inside the range."""
    reached = _encrypt(np.arange(4**width), _round_keys(seed), width)
    while (reached[:count] >= count).any():
        outside = np.flatnonzero(reached >= count)
        reached[outside] = reached[reached[outside]]
    return reached[:count].astype(np.uint16)


def _encrypt(value: _Value, keys: tuple[int, ...], width: int) -> _Value:
    """The Simon cipher for two words of `width` bits, of a number or of each entry of an array."""
    mask = (1 << width) - 1
    left, right = value >> width & mask, value & mask
    for key in keys:
        by_1 = right << 1 | right >> width - 1
        by_2 = right << 2 | right >> width - 2
        by_8 = right << 8 | right >> width - 8
        left, right = right, (left ^ by_1 & by_8 ^ by_2 ^ key) & mask
    return left << width | right


@functools.lru_cache(maxsize=256)
def _round_keys(seed: int) -> tuple[int, ...]:
    """The 4 words of `std::seed_seq{seed}` (C++ standard, [rand.util.seedseq])."""
    words = [0x8B8B8B8B] * _ROUNDS
    # Of four words, number n + 1 is n - 3, and n + 2 is n - 2.
    for n, added in enumerate((1, 1 + seed, 2, 3)):
        first = 1664525 * _fold(words[n] ^ words[n - 3] ^ words[n - 1]) & _WORD
        second = first + added & _WORD
        words[n - 3] = words[n - 3] + first & _WORD
        words[n - 2] = words[n - 2] + second & _WORD
        words[n] = second
    for n in range(_ROUNDS):
        first = 1566083941 * _fold(words[n] + words[n - 3] + words[n - 1] & _WORD) & _WORD
        second = first - n & _WORD
        words[n - 3] ^= first
        words[n - 2] ^= second
        words[n] = second
    return tuple(words)


def _fold(word: int) -> int:
    return word ^ word >> 27
