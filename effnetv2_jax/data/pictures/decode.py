"""Encoded pictures to `uint8` arrays, mostly RGB: the whole, or a part planned from its size."""

import dataclasses
import math
from typing import NamedTuple, Protocol

from effnetv2_jax.data.pictures import jpeg, pillow
from effnetv2_jax.data.pictures.box import Box, Pixels, stored_box, turn, turned_size
from effnetv2_jax.data.pictures.channels import (
    is_array,
    is_tiff,
    read_array,
    read_tiff,
    to_channels,
)
from effnetv2_jax.data.pictures.limits import MAX_BYTES, MAX_PIXELS
from effnetv2_jax.data.record import DecodeError


class OpenPicture(Protocol):
    """A picture whose size is known, and whose pixels may not have been decoded yet."""

    @property
    def height(self) -> int:
        """In pixels, after the picture is turned."""
        ...

    @property
    def width(self) -> int: ...

    def part(self, box: Box) -> Pixels:
        """The pixels inside a box: uint8 [box.height, box.width, C], possibly not contiguous.

        They do not depend on whether the rest is decoded.

        Raises:
          DecodeError: it is damaged; nothing else is raised.
        """
        ...


def decode(
    encoded: bytes, *, exif: bool = False, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Decodes a picture in any of the `pillow.FORMATS`; of an animation, its first frame.

    JPEG goes through libjpeg-turbo with accurate DCT and smooth chroma upsampling. Grey becomes
    RGB, transparency is laid over white, 16-bit channels are scaled as `deep` says, and CMYK is
    converted without a colour profile.

    Args:
      encoded: the file's bytes.
      exif: turn the picture as its EXIF orientation says.
      channels: C, of what is wanted: 3 for RGB, 1 for grey, into which colours are turned. Others
        have to be the file's, a `.npy` array's or a TIFF's.
      max_pixels: a larger picture is refused.

    Returns:
      uint8 [height, width, C]; possibly a view that is not contiguous.

    Raises:
      DecodeError: it is no picture, is damaged, has no 8- or 16-bit channels, or exceeds one of the
        `limits`. Nothing else is raised, and memory is bounded by `PEAK_BYTES_PER_PIXEL`, whatever
        the bytes are.
    """
    header = _read_header(encoded)
    if (pixels := _decode_channels(encoded, channels, max_pixels)) is not None:
        return pixels
    pixels, orientation = _decode_stored(encoded, header, max_pixels)
    return to_channels(turn(pixels, orientation) if exif else pixels, channels)


class Scaled(NamedTuple):
    """A picture that was decoded at a smaller scale."""

    pixels: Pixels
    height: int
    """Of the whole, as are the pixels turned."""
    width: int


def decode_scaled(
    encoded: bytes, *, least: int, exif: bool = False, max_pixels: int = MAX_PIXELS
) -> Scaled | None:
    """Decodes a JPEG of more than `max_pixels` at a half, a quarter or other eighths of its size.

    What is computed and kept are the pixels of that size, but for the file and, of a progressive
    one, up to 6 bytes for each pixel of the whole.

    Args:
      encoded: the file's bytes.
      least: pixels that the short side has to keep.
      exif: turn the picture as its EXIF orientation says.
      max_pixels: of the result; a progressive one may have three times as many before.

    Returns:
      Its pixels, uint8 RGB; None for other pictures, which `decode` can decode as a whole.

    Raises:
      DecodeError: it is damaged, or too large even so.
    """
    header = _read_header(encoded)
    stored = None if header is None else jpeg.stored_size(encoded)
    if header is None or stored is None or math.prod(stored) <= max_pixels:
        return None
    size, progressive = jpeg.scaled_size(stored, least), header.size_at is None
    if math.prod(size) > max_pixels or (progressive and math.prod(stored) > 3 * max_pixels):
        raise DecodeError(
            f"it has {stored[1]} x {stored[0]} pixels{', progressive' if progressive else ''}, too "
            f"many to be shrunk with max_pixels={max_pixels:,}"
        )
    try:
        pixels = jpeg.decode_scaled(encoded, size)
    except ValueError as error:
        raise DecodeError(f"it cannot be decoded at a smaller scale: {error}") from error
    orientation = header.orientation if exif else 1
    return Scaled(turn(pixels, orientation), *turned_size(*stored, orientation))


def open_picture(
    encoded: bytes, *, exif: bool = False, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> OpenPicture:
    """Finds out a picture's size, so that a part of it can be chosen and decoded.

    Of baseline JPEG only the headers are read here, and later no rows below the part: damage
    there, or damage that libjpeg can read past, is not noticed. Other pictures are decoded here:
    their EXIF orientation may stand behind the pixels.

    Args:
      encoded, exif, channels, max_pixels: as for `decode`.

    Raises:
      DecodeError: as for `decode`.
    """
    header = _read_header(encoded)
    size = None if header is None else jpeg.size_for_parts(encoded, header, max_pixels)
    if header is None or size is None or channels not in (1, 3):
        return _Decoded(decode(encoded, exif=exif, channels=channels, max_pixels=max_pixels))
    orientation = header.orientation if exif else 1
    return _BaselineJpeg(encoded, header, *size, orientation, channels)


@dataclasses.dataclass(frozen=True)
class _Decoded:
    """An `OpenPicture` that is decoded already."""

    pixels: Pixels

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def part(self, box: Box) -> Pixels:
        return box.cut(self.pixels)


@dataclasses.dataclass(frozen=True)
class _BaselineJpeg:
    """An `OpenPicture` of which `jpeg.decode_part` decodes no more than it has to."""

    encoded: bytes
    header: jpeg.JpegHeader
    stored_height: int
    stored_width: int
    orientation: int
    """By which it is turned."""
    channels: int

    @property
    def height(self) -> int:
        return turned_size(self.stored_height, self.stored_width, self.orientation)[0]

    @property
    def width(self) -> int:
        return turned_size(self.stored_height, self.stored_width, self.orientation)[1]

    def part(self, box: Box) -> Pixels:
        stored = stored_box(box, self.orientation, self.stored_height, self.stored_width)
        pixels = jpeg.decode_part(self.encoded, self.header, stored)
        if pixels is None:
            # Whatever orientation Pillow may find, the box was planned with the header's.
            limit = self.stored_height * self.stored_width
            whole, _ = _decode_stored(self.encoded, self.header, limit)
            if whole.shape[:2] != (self.stored_height, self.stored_width):
                raise DecodeError("its headers state more than one size")
            pixels = stored.cut(whole)
        return to_channels(turn(pixels, self.orientation), self.channels)


def _read_header(encoded: bytes) -> jpeg.JpegHeader | None:
    """The header of a JPEG, None for other pictures; raises a DecodeError for what exceeds limits.

    The number of pixels is checked later.
    """
    if not encoded:
        raise DecodeError("it is empty")
    if len(encoded) > MAX_BYTES:
        raise DecodeError(f"it has {len(encoded):,} bytes, more than {MAX_BYTES:,}")
    header = jpeg.read_header(encoded)
    if header is not None and header.size_at is None:
        jpeg.check_scans(encoded)
    return header


def _decode_channels(encoded: bytes, channels: int, max_pixels: int) -> Pixels | None:
    """A picture that Pillow does not read, with its own channels; None for others.

    Raises:
      DecodeError: as for `decode`.
    """
    if is_array(encoded):
        return to_channels(read_array(encoded, max_pixels), channels)
    if channels in (1, 3):
        return None
    if is_tiff(encoded):
        return to_channels(read_tiff(encoded, max_pixels), channels)
    raise DecodeError(
        f"the model takes {channels} channels (config.model.input_channels), which only TIFF and "
        ".npy files have"
    )


def _decode_stored(
    encoded: bytes, header: jpeg.JpegHeader | None, max_pixels: int
) -> tuple[Pixels, int]:
    """All pixels as they are stored, and the EXIF orientation."""
    if header is not None:
        pixels = jpeg.decode_jpeg(encoded, max_pixels)
        if pixels is not None:
            return pixels, header.orientation
    return pillow.decode(encoded, max_pixels)
