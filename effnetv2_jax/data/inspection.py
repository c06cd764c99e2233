"""Looks through the pictures of a run: their classes and sizes, and which are there twice."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from effnetv2_jax.data.pictures.decode import OpenPicture, open_picture
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.record import Classed, DecodeError, Named, Source

MOST = 20_000
"""Pictures of a source that are all read; of a larger one some, spread evenly."""
SOME = 200
SECONDS = 10.0
"""That reading all of a source's pictures may take."""


class Inspection(NamedTuple):
    """What was found in a source."""

    class_counts: list[int] | None
    """Pictures by class; None where it is not known."""
    sizes: list[list[int]]
    """Widths and heights in pixels, of `SOME` pictures at most."""
    keys: list[str] | None
    """Of all examples; None where not all were read."""
    digests: dict[str, str] | None
    """Keys of the pictures by a hash of their file; None where not all were read."""


def inspect(
    source: Source,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    clock: Callable[[], float] = time.monotonic,
) -> Inspection:
    """Reads a source's pictures, all of them if they are few, without decoding them.

    What cannot be read is left out.

    Args:
      channels, max_pixels: as for `decode`.
    """
    open_one = functools.partial(
        open_picture, exif=source.exif, channels=channels, max_pixels=max_pixels
    )
    count = len(source)
    counts = list(source.class_counts) if isinstance(source, Classed) else None
    spread = {count * number // SOME for number in range(SOME)} if count > SOME else range(count)
    if count > MOST:
        return Inspection(counts, _sizes(source, sorted(spread), open_one), None, None)
    until = clock() + SECONDS
    sizes: list[list[int]] = []
    keys: list[str] = []
    digests: dict[str, str] = {}
    found = [0] * len(source.class_names)
    for index in range(count):
        if clock() > until:
            return Inspection(counts, sizes, None, None)
        try:
            record = source[index]
        except (DecodeError, OSError):
            keys.append(name_of(source, index))
            continue
        keys.append(record.key)
        digests[hashlib.blake2b(record.encoded, digest_size=16).hexdigest()] = record.key
        for label in record.labels:
            if label < len(found):
                found[label] += 1
        if index in spread:
            sizes += _size(record.encoded, open_one)
    return Inspection(found if counts is None else counts, sizes, keys, digests)


def name_of(source: Source, index: int) -> str:
    """Names an example without reading it."""
    return source.key(index) if isinstance(source, Named) else f"{source.name} example {index}"


def twins(train: Inspection, evaluation: Inspection) -> list[tuple[str, str]] | None:
    """Pictures of evaluation that are also trained on, and the others' names; None: not known."""
    if train.digests is None or evaluation.digests is None:
        return None
    return [
        (key, train.digests[digest])
        for digest, key in evaluation.digests.items()
        if digest in train.digests
    ]


def _sizes(
    source: Source, indices: Iterable[int], open_one: Callable[[bytes], OpenPicture]
) -> list[list[int]]:
    found = []
    for index in indices:
        try:
            found += _size(source[index].encoded, open_one)
        except (DecodeError, OSError):
            continue
    return found


def _size(encoded: bytes, open_one: Callable[[bytes], OpenPicture]) -> list[list[int]]:
    try:
        picture = open_one(encoded)
    except DecodeError:
        return []
    return [[picture.width, picture.height]]
