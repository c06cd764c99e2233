"""A source seen by somebody who counts its classes in another way."""

from collections.abc import Sequence

from effnetv2_jax.data.record import Record, Source, available


class RelabelledSource:
    """The examples of a source, with labels that are places in another list of classes.

    Args:
      source: the examples.
      class_names: the other list.
      labels: by label of the source, the place there.
    """

    def __init__(self, source: Source, class_names: Sequence[str], labels: Sequence[int]) -> None:
        self._source = source
        self._labels = tuple(labels)
        self.class_names = tuple(class_names)
        self.name, self.fingerprint, self.exif = source.name, source.fingerprint, source.exif
        self.available = available(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        known = range(len(self._labels))
        # One that is out of range stays so, and is told by whoever reads it.
        labels = (
            self._labels[n] if n in known else n + len(self.class_names) for n in record.labels
        )
        return record._replace(labels=tuple(labels))
