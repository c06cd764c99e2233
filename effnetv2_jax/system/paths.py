"""Places as people write them: `~/runs`, `file:///runs`, `gs://bucket/runs`."""

import os
import re


def local_path(text: str) -> str:
    """A path with `~` and `file://` taken for what they mean; others stay as they are."""
    found = re.match(r"file://(?:localhost)?(?=/|~)", text)
    return os.path.expanduser(text[found.end() :] if found else text)


def scheme_of(text: str) -> str:
    """`gs` of `gs://bucket/runs`; empty where there is none."""
    found = re.match(r"([A-Za-z][\w+.-]*):/", text)
    return found[1] if found else ""
