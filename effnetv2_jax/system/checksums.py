"""Checksums of bytes and of files."""

import hashlib
import os
from typing import Any

import google_crc32c


def masked_crc32c(data: Any) -> int:
    """CRC-32C of bytes or an array, masked as TFRecord files and TensorFlow's checkpoints have it.

    Returns:
      32 bits.
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
