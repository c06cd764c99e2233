"""Few candidates that together have every block of a space."""

import itertools
import re
from collections.abc import Iterator

from effnetv2_jax.nas.space import Label, Space

_STAGE = re.compile(r"model\.stages\[(-?\d+)\]\.")


def covering(space: Space) -> Iterator[dict[str, Label]]:
    """Yields picks among which every stage has every combination of what is chosen for it.

    A block depends on its own stage's choices alone, as long as channels are not chosen. Choices
    besides, such as of a width, have each of their values in some of them.
    """
    groups: dict[str, list[list[tuple[str, Label]]]] = {}
    for choice in space:
        match = _STAGE.match(choice.name)
        values = [(choice.name, label) for label in choice.labels]
        groups.setdefault(match[1] if match else choice.name, []).append(values)
    combined = [list(itertools.product(*group)) for group in groups.values()]
    for index in range(max(map(len, combined), default=0)):
        chosen = (picked for each in combined for picked in each[index % len(each)])
        yield dict(chosen)
