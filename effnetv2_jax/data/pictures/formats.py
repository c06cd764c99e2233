"""Which picture formats can be read here, by the endings of their files."""

import importlib.util
import os
from typing import NamedTuple

from PIL import features


class Format(NamedTuple):
    """A format of pictures."""

    pillow: str
    """As Pillow calls it."""
    endings: tuple[str, ...]
    """Of its files, in lower case."""
    install: str | None = None
    """What gives this machine a decoder; None where there is one."""


def _optional(pillow: str, endings: tuple[str, ...], here: bool, install: str) -> Format:
    return Format(pillow, endings, None if here else install)


def _has_pillow(feature: str) -> bool:
    # Older ones do not know the name, and warn.
    return feature in features.get_supported()


_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp")
_ALL = (
    Format("JPEG", _JPEG),
    Format("PNG", (".png", ".apng")),
    Format("WEBP", (".webp",)),
    Format("BMP", (".bmp",)),
    Format("TIFF", (".tif", ".tiff")),
    Format("GIF", (".gif",)),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm")),
    _optional("AVIF", (".avif",), _has_pillow("avif"), "pip install 'pillow>=11.3'"),
    _optional(
        "JPEG2000",
        (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
        _has_pillow("jpg_2000"),
        "a build of Pillow with OpenJPEG",
    ),
    _optional(
        "HEIF",
        (".heic", ".heif", ".hif"),
        importlib.util.find_spec("pillow_heif") is not None,
        "pip install pillow-heif",
    ),
)
_BY_ENDING = {ending: each for each in _ALL for ending in each.endings}

READ = tuple(each for each in _ALL if each.install is None)
"""Those with a decoder on this machine."""
ENDINGS = (*(ending for each in READ for ending in each.endings), ".npy")
"""Of files that count as pictures; upper and lower case are the same."""

_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    *(b"P%d%c" % (kind, blank) for kind in range(1, 7) for blank in b" \t\r\n"),
)
SIGNATURE_BYTES = 12
"""How much of a file `is_signature` looks at."""


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; empty if it has none."""
    return os.path.splitext(name)[1].lower()


def is_signature(head: bytes) -> bool:
    """Whether a file that begins so is a picture in one of the formats that need no package."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return head[6:10] == bytes(4)
    return head.startswith(_SIGNATURES)


def how_to_read(ending: str) -> str | None:
    """What to install to read files of this ending; None where nothing is known that would."""
    found = _BY_ENDING.get(ending)
    return None if found is None else found.install


def how_to_decode(head: bytes) -> str | None:
    """What to install to read a file that begins so; None likewise."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return how_to_read(".avif")
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        return how_to_read(".heic")
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return how_to_read(".jp2")
    return None
