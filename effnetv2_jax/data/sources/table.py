"""Pictures that a table names, with their labels."""

import os
from collections.abc import Sequence

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.labelled import LabelledSource
from effnetv2_jax.data.sources.picture_table import PictureTable, together
from effnetv2_jax.data.sources.text_labels import take_split
from effnetv2_jax.system.text import some


class TableSource(LabelledSource):
    """A split of a table; only paths and labels are kept in memory."""

    def __init__(
        self,
        table: PictureTable,
        split: str,
        data: DataConfig,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Takes a split.

        Args:
          table: as it was read.
          split: see `text_labels.take_split`.
          data: how the table was read.
          class_names: likewise.

        Raises:
          DataError: there is no such split, or it has labels that training lacks.
        """
        self._folder = str(table.folder)
        known = class_names or table.class_names
        taken = take_split(table.entries, split, data, known, of=str(table.root))
        notes = list(table.notes)
        several = together(entry.labels for entry in table.entries)
        if data.max_labels == 1 and several:
            notes.append(
                f"{some(map(shown, several), 3)} are classes of their own; for several labels a "
                "picture set data.label_separator and data.max_labels"
            )
        super().__init__(
            taken.name, taken.examples, taken.class_names, available=taken.available, notes=notes
        )

    def _encoded(self, index: int) -> tuple[str, bytes]:
        path = os.path.join(self._folder, self.paths[index])
        return path, read_picture(path)
