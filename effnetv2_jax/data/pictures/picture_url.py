"""A picture that lies on the web."""

import errno
import urllib.error
import urllib.request

from effnetv2_jax.data.pictures.limits import MAX_BYTES

TIMEOUT = 30
"""Seconds that a server may take to answer, and between parts of its answer."""


def is_url(path: str) -> bool:
    """Whether a path is the address of a web page, `http://` or `https://`."""
    return path.lower().startswith(("http://", "https://"))


def read_url(url: str) -> bytes:
    """What a web server sends, in memory that is bounded.

    Raises:
      OSError: it cannot be had, or has more than `MAX_BYTES`; its `filename` is the URL.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "effnetv2_jax"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:  # Which holds the connection.
            raise OSError(errno.EIO, f"it cannot be downloaded: {error}", url) from None
    except Exception as error:  # Of odd addresses and answers, the client raises others as well.
        raise OSError(errno.EIO, f"it cannot be downloaded: {error}", url) from error
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES:,} bytes", url)
    return content
