"""Names of the classes that published weights know."""

import functools
from pathlib import Path
from typing import Literal


@functools.cache
def imagenet(which: Literal["1k", "21k"]) -> tuple[str, ...]:
    """The 1,000 classes of ImageNet or the 21,843 of ImageNet21k, in the order of the labels."""
    lines = (Path(__file__).parent / "imagenet.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple(words for _, member_of, words in rows if member_of in (which, "both"))
