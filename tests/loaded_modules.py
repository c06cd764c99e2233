"""A source that reports what a process has imported; apart, since tests import far more."""

import sys

from effnetv2_jax.data.record import DecodeError, Record, Source


class LoadedModules:
    """The examples of a source; after a first one, the odd ones are unreadable, with the reason."""

    name = "loaded modules"
    fingerprint = "loaded modules"

    def __init__(self, source: Source) -> None:
        self._source = source
        self.exif = source.exif
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        if index % 2:
            raise DecodeError(" ".join(sys.modules))
        return record
