"""What a run's data are, in lines for its user: classes, pictures, and what deserves a look."""

import collections
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import Classed, Noted, Source, available
from effnetv2_jax.data.sources.folder import FolderSource
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.folder_tree import describe
from effnetv2_jax.data.sources.open import LISTED, open_source, open_sources
from effnetv2_jax.system.text import some

TRAINING = "training"
EVALUATION = "evaluation"
"""What sources are for."""

_NAMED = 10
"""Classes that are named, at most."""


class Survey(NamedTuple):
    """What is known of data before a picture is read."""

    examples: int
    """Training examples."""
    classes: int
    report: tuple[str, ...]
    """As `describe_data` makes it; empty for data that were not listed."""
    train: Source | None
    """The training examples; None where they were not opened."""


def survey(data: DataConfig) -> Survey:
    """Counts training examples and classes; opens the data if the config lacks one of the numbers.

    Raises:
      DataError: as `open_source`.
    """
    if data.num_train_examples is not None and data.num_classes is not None:
        return Survey(data.num_train_examples, data.num_classes, (), None)
    if data.source not in LISTED:
        source = open_source(data, "train")
        return Survey(len(source), len(source.class_names), (), source)
    train, evaluation = open_sources(data)
    report = tuple(describe_data({TRAINING: train, EVALUATION: evaluation}))
    return Survey(len(train), len(train.class_names), report, train)


def describe_data(sources: Mapping[str, Source]) -> list[str]:
    """The classes, the pictures of each split, what is passed over, and what may be a mistake.

    Args:
      sources: by what they are for, such as `TRAINING` and `EVALUATION`; at least one, all with the
        same classes.
    """
    classes = next(iter(sources.values())).class_names
    lines = [f"{len(classes):,} classes: {_some(classes)}"]
    lines += [f"{purpose}: {_counts(source)}" for purpose, source in sources.items()]
    folders = [source for source in sources.values() if isinstance(source, FolderSource)]
    passed_over: dict[str, Counter[str]] = {}
    for folder in folders:
        passed_over |= folder.passed_over
    if said := describe(sum(passed_over.values(), start=collections.Counter[str]())):
        lines.append(f"passed over: {said}")
    used = {name for folder in folders for name in folder.folders}
    unused = [
        f"{shown(name)}/ ({count:,})"
        for folder in folders[:1]
        for name, count in folder.splits.items()
        if name not in used
    ]
    if unused:
        lines.append(f"splits that are not used: {', '.join(unused)}")
    noted = [source for source in sources.values() if isinstance(source, Noted)]
    lines += dict.fromkeys(note for source in noted for note in source.notes)
    return lines + [f"note: {text}" for text in _doubts(sources)]


def _counts(source: Source) -> str:
    parts = [f"{len(source):,} of {available(source):,} pictures, {shown(source.name)}"]
    if isinstance(source, Classed) and len(source):
        counts = dict(zip(source.class_names, source.class_counts))
        # Of several the first by name.
        rarest, most = (min(counts, key=key) for key in (counts.__getitem__, _negative(counts)))
        parts.append(f"rarest {shown(rarest)} ({counts[rarest]:,})")
        parts.append(f"most frequent {shown(most)} ({counts[most]:,})")
    return "; ".join(parts)


def _negative(counts: dict[str, int]) -> Callable[[str], int]:
    return lambda name: -counts[name]


def _doubts(sources: Mapping[str, Source]) -> list[str]:
    """What is allowed and often a mistake."""
    found = []
    classes = next(iter(sources.values())).class_names
    train, evaluation = sources.get(TRAINING), sources.get(EVALUATION)
    if isinstance(train, Classed):
        for count, few in ((0, "no training picture"), (1, "a single training picture")):
            names = [name for name, its in zip(classes, train.class_counts) if its == count]
            if names:
                found.append(f"classes with {few}: {_some(names)}")
    if isinstance(evaluation, Classed):
        names = [name for name, its in zip(classes, evaluation.class_counts) if not its]
        if names:
            found.append(
                f"classes without pictures for evaluation, {len(names):,} of {len(classes):,}: "
                f"{_some(names)}"
            )
    if isinstance(train, Noted) and isinstance(evaluation, Noted):
        both = len({*evaluation.paths}.intersection(train.paths))
        if both:
            found.append(f"{both:,} of the pictures for evaluation are also trained on")
    alike = collections.defaultdict(list)
    for name in classes:
        alike[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    found += [
        f"classes whose names differ only in blanks, case or form: {', '.join(map(repr, names))}"
        for names in alike.values()
        if len(names) > 1
    ]
    return found


def _some(names: Iterable[str]) -> str:
    return some(map(shown, names), _NAMED)
