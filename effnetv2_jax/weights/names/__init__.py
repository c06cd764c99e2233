"""Names of the classes that published weights know."""

import functools
from pathlib import Path
from typing import Literal

Which = Literal["1k", "21k"]


def imagenet(which: Which) -> tuple[str, ...]:
    """The 1,000 classes of ImageNet or the 21,843 of ImageNet21k, in the order of the labels."""
    return tuple(words for _, words in _imagenet(which))


def synsets(which: Which) -> tuple[str, ...]:
    """WordNet's numbers of the same classes: `n01440764`, by which data sets know them."""
    return tuple(synset for synset, _ in _imagenet(which))


@functools.cache
def _imagenet(which: Which) -> tuple[tuple[str, str], ...]:
    lines = (Path(__file__).parent / "imagenet.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple((synset, words) for synset, sets, words in rows if sets in (which, "both"))
