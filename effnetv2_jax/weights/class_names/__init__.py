"""Names of the classes that published weights know."""

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Which = Literal["1k", "21k"]


def imagenet(which: Which) -> tuple[str, ...]:
    """The 1,000 classes of ImageNet or the 21,843 of ImageNet21k, in the order of the labels."""
    return tuple(words for _, words in _imagenet(which))


def synsets(which: Which) -> tuple[str, ...]:
    """WordNet's numbers of the same classes: `n01440764`, by which data sets know them."""
    return tuple(synset for synset, _ in _imagenet(which))


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists of names mean the same classes in the same order.

    ImageNet's are known by words, by WordNet's numbers, and by their places: "0", "1", ...
    """
    names = {tuple(one), tuple(other)}
    if len(names) == 1:
        return True
    whole: tuple[Which, ...] = ("1k", "21k")
    return any(
        len(one) == len(_imagenet(which))
        and names <= {imagenet(which), synsets(which), tuple(map(str, range(len(synsets(which)))))}
        for which in whole
    )


def in_certain_order(names: Sequence[str]) -> bool:
    """Whether anybody would have numbered classes of these names alike, as far as is known.

    Words are sorted as text. Numbers are sorted as such or as text, by which 10 comes before 2; but
    those from 0 on, in their order, are the labels themselves.
    """
    if not all(name.isdecimal() for name in names):
        return True
    labels = [str(label) for label in range(len(names))]
    return list(names) == labels or sorted(names) == sorted(names, key=int) == list(names)


def places(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Where each of the names stands in a list of known ones; None where it is not in it.

    ImageNet's classes are found by words and by WordNet's numbers, whichever the list has.
    """
    place = {_composed(name): index for index, name in enumerate(known)}
    whole: tuple[Which, ...] = ("1k", "21k")
    for which in whole:
        if len(known) == len(_imagenet(which)) and same_classes(known, synsets(which)):
            for others in (imagenet(which), synsets(which)):
                place |= {_composed(name): index for index, name in enumerate(others)}
    return [place.get(_composed(name)) for name in names]


def _composed(name: str) -> str:
    """The name in one of the ways in which Unicode can write it."""
    return unicodedata.normalize("NFC", name)


@functools.cache
def _imagenet(which: Which) -> tuple[tuple[str, str], ...]:
    lines = (Path(__file__).parent / "imagenet.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple((synset, words) for synset, sets, words in rows if sets in (which, "both"))
