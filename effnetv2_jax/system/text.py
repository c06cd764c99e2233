"""Lists in messages."""

from collections.abc import Iterable


def some(names: Iterable[str], most: int) -> str:
    """The names, or the first `most` of them and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
