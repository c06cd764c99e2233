"""Tables of text."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """Lines whose columns stand below each other, to the right.

    Args:
      rows: cells, as many in each row.
      left: how many of the first columns stand to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
