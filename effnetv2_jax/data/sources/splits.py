"""Parts of a data set, in the notation of TensorFlow Datasets: `train`, `train[:90%]`."""

import re
from typing import NamedTuple

from effnetv2_jax.data.record import DataError

_NUMBER = r"-?\d+"
_PERCENTAGE = r"-?(?:100(?:\.0+)?|\d{1,2}(?:\.\d+)?)%"
_SPLITS = [
    re.compile(rf"([\w-]+)(?:\[(?!:\])({bound})?:({bound})?\])?")
    for bound in (_NUMBER, _PERCENTAGE)
]


class Split(NamedTuple):
    """A named part of a data set, or a slice of it."""

    text: str
    """As it was written."""
    name: str
    start: str | None
    """Where a slice begins, such as `-5000` or `10%`; None is at the first example."""
    stop: str | None
    """Where it ends, likewise; None is after the last."""

    @property
    def is_slice(self) -> bool:
        return (self.start, self.stop) != (None, None)

    def indices(self, count: int) -> range:
        """Which of the `count` examples that have the name; percentages round to the closest.

        Raises:
          DataError: there are none in the slice, or it reaches beyond them.
        """
        start = 0 if self.start is None else _position(self.start, count)
        stop = count if self.stop is None else _position(self.stop, count)
        if start < 0 or start > count or stop < 0 or stop > count:
            raise DataError(
                f"split {self.text!r} reaches beyond the {count} examples of {self.name!r}"
            )
        if start >= stop:
            raise DataError(f"split {self.text!r} is empty; {self.name!r} has {count} examples")
        return range(start, stop)


def parse_split(text: str) -> Split:
    """Reads `name`, `name[start:stop]`, `name[start:]` or `name[:stop]`.

    `start` and `stop` are numbers of examples, or percentages; negative ones count from the end.
    What is understood means the same to TensorFlow Datasets, which understands more.

    Raises:
      DataError: it is written otherwise.
    """
    for pattern in _SPLITS:
        if match := pattern.fullmatch(text):
            return Split(text, *match.groups())
    raise DataError(
        f"split {text!r} is not understood; it is a name such as 'train', or a slice such as "
        "'train[1000:]', 'train[-1000:]' or 'train[10%:90%]'"
    )


def _position(bound: str, count: int) -> int:
    """The index that a bound means."""
    position = round(float(bound[:-1]) * count / 100) if bound[-1] == "%" else int(bound)
    return position + count if position < 0 else position
