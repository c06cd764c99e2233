"""Which examples are held out for evaluation, where there are none for it."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.split_names import Role, role_of
from effnetv2_jax.system.text import some

Half = Literal["held out", "rest"]

STANDS_IN: dict[Role, tuple[Role, ...]] = {
    "train": ("train",),
    "val": ("val", "test"),
    "test": ("test", "val"),
}
"""For a split that is asked for, those that stand in for it, itself first."""


class Picture(Protocol):
    """What has a path, by which it is decided."""

    @property
    def path(self) -> str: ...


_Picture = TypeVar("_Picture", bound=Picture)


def held_out(pictures: Iterable[tuple[Hashable, _Picture]], share: float) -> set[str]:
    """The paths of the pictures of every class whose hashed paths come first.

    Args:
      pictures: pairs of a class and a picture of it.
      share: of every class, rounded; at least one picture of a class that has two, and none at all
        for 0.
    """
    if not share:
        return set()
    by_class: dict[Hashable, list[_Picture]] = {}
    for label, picture in pictures:
        by_class.setdefault(label, []).append(picture)
    found: set[str] = set()
    for members in by_class.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        found.update(picture.path for picture in sorted(members, key=by_hash)[:count])
    return found


def by_hash(picture: Picture) -> bytes:
    """Sorts pictures at random, by their paths alone."""
    return hashlib.sha256(picture.path.encode(errors="surrogateescape")).digest()


class Part(NamedTuple):
    """What a split is taken from."""

    names: tuple[str, ...]
    """The parts of the data that it is taken from."""
    half: Half | None = None
    """The pictures held out for evaluation, or the others; None is both."""


def choose_part(parts: Sequence[str], wanted: str, *, of: str) -> Part:
    """Which of the named parts of a data set a split means.

    Args:
      parts: their names; one part that is called "" is data without splits.
      wanted: the split: a part's name, a synonym such as `validation` for `val`, or `all`. `val`
        and `test` stand in for each other, and for what is held out of the training part where
        there is neither.
      of: the data set, in messages.

    Raises:
      DataError: there is no such part, or several are meant.
    """
    roles = {name: role_of(name) for name in parts}
    evaluated = {"val", "test"} & {*roles.values()}
    if wanted in roles and wanted:
        trains = roles[wanted] == "train" and not evaluated
        return Part((wanted,), "rest" if trains else None)
    if wanted == "all":
        return Part(tuple(parts))
    role = role_of(wanted)
    if role is not None and list(parts) == [""]:
        return Part(("",), "rest" if role == "train" else "held out")
    for stand_in in STANDS_IN[role] if role else ():
        found = [name for name, its in roles.items() if its == stand_in]
        if len(found) > 1:
            raise DataError(
                f"{of} has the splits {some(found, 8)}; set data.train_split and data.eval_split "
                "to those that you mean"
            )
        if found:
            return choose_part(parts, found[0], of=of)
    train = [name for name, its in roles.items() if its == "train"]
    if role in ("val", "test") and len(train) == 1:
        return Part((train[0],), "held out")
    there = some(map(repr, filter(None, parts)), 8) or "none of its own: train and val are made"
    raise DataError(f"{of} has no split {wanted!r}; there are {there}, and `all` is all of it")
