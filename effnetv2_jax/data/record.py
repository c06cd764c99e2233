"""What every source of pictures offers, and the errors that data can cause."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class DataError(ValueError):
    """A data set that cannot be used; the message names it and says what to do."""


class DecodeError(ValueError):
    """A picture that cannot be read; the message is the reason."""


class Record(NamedTuple):
    """One example as it is stored."""

    key: str
    """Names the example in messages: a path, or where it stands in its split."""
    encoded: bytes
    """The picture as a JPEG, PNG or other file."""
    labels: tuple[int, ...]
    """Indices into the source's `class_names`, most often one; sources do not check them."""


class Source(Protocol):
    """Random access to labelled pictures; safe to read from several threads at once."""

    @property
    def name(self) -> str:
        """Names the source in messages."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels, the same for training and evaluation."""
        ...

    @property
    def fingerprint(self) -> str:
        """Differs between sources that hold different examples; cheap, so it reads no pixels."""
        ...

    @property
    def exif(self) -> bool:
        """Whether a picture is turned as its EXIF orientation says."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Example `index`, from 0; raises OSError or DecodeError where it cannot be read."""
        ...


@runtime_checkable
class Classed(Protocol):
    """A source that knows the classes of its examples without reading them."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many examples each class has, in the order of `class_names`."""
        ...

    def same_class(self, index: int) -> Sequence[int]:
        """The indices of all examples of the class of example `index`, itself included."""
        ...


@runtime_checkable
class Named(Protocol):
    """A source that knows the names of its examples without reading them."""

    def key(self, index: int) -> str:
        """The `Record.key` of example `index`, from 0."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A source that knows the labels of its examples without reading them."""

    def labels_of(self, index: int) -> tuple[int, ...]:
        """The labels of example `index`, as its `Record` has them."""
        ...


@runtime_checkable
class Noted(Protocol):
    """A source that says how it is read."""

    @property
    def paths(self) -> Sequence[str]:
        """Of the pictures, in the order of the examples."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know of how it is read, a sentence each."""
        ...


@runtime_checkable
class Partial(Protocol):
    """A source that may be a part of a split."""

    @property
    def available(self) -> int:
        """Examples of the whole split, of which it is a slice, or what is held out."""
        ...


def available(source: Source) -> int:
    """Examples of the whole split that a source is taken from, as far as it says so."""
    return source.available if isinstance(source, Partial) else len(source)
