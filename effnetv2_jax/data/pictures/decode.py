"""Encoded pictures to `uint8` RGB arrays: the whole, or a part planned from the picture's size."""

import dataclasses
from typing import Protocol

from effnetv2_jax.data.pictures import jpeg, pillow
from effnetv2_jax.data.pictures.box import Box, Pixels, stored_box, turn, turned_size
from effnetv2_jax.data.pictures.limits import MAX_BYTES
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
        """The pixels inside a box: uint8 [box.height, box.width, 3], possibly not contiguous.

        They do not depend on whether the rest is decoded.

        Raises:
          DecodeError: it is damaged; nothing else is raised.
        """
        ...


def decode(encoded: bytes, *, exif: bool = False) -> Pixels:
    """Decodes a picture in any of the `pillow.FORMATS`; of an animation, its first frame.

    JPEG goes through libjpeg-turbo with accurate DCT and smooth chroma upsampling. Grey becomes
    RGB, transparency is laid over white, 16-bit channels are scaled as `deep` says, and CMYK is
    converted without a colour profile.

    Args:
      encoded: the file's bytes.
      exif: turn the picture as its EXIF orientation says.

    Returns:
      uint8 [height, width, 3], RGB; possibly a view that is not contiguous.

    Raises:
      DecodeError: it is no picture, is damaged, has no 8- or 16-bit channels, or exceeds one of the
        `limits`. Nothing else is raised, and memory is bounded by `PEAK_BYTES_PER_PIXEL`, whatever
        the bytes are.
    """
    header = _read_header(encoded)
    pixels, orientation = _decode_stored(encoded, header)
    return turn(pixels, orientation) if exif else pixels


def open_picture(encoded: bytes, *, exif: bool = False) -> OpenPicture:
    """Finds out a picture's size, so that a part of it can be chosen and decoded.

    Of baseline JPEG only the headers are read here, and later no rows below the part: damage
    there, or damage that libjpeg can read past, is not noticed. Other pictures are decoded here:
    their EXIF orientation may stand behind the pixels.

    Args:
      encoded, exif: as for `decode`.

    Raises:
      DecodeError: as for `decode`.
    """
    header = _read_header(encoded)
    size = None if header is None else jpeg.size_for_parts(encoded, header)
    if header is None or size is None:
        pixels, orientation = _decode_stored(encoded, header)
        return _Decoded(turn(pixels, orientation) if exif else pixels)
    return _BaselineJpeg(encoded, header, *size, header.orientation if exif else 1)


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
            whole, _ = _decode_stored(self.encoded, self.header)
            if whole.shape[:2] != (self.stored_height, self.stored_width):
                raise DecodeError("its headers state more than one size")
            pixels = stored.cut(whole)
        return turn(pixels, self.orientation)


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


def _decode_stored(encoded: bytes, header: jpeg.JpegHeader | None) -> tuple[Pixels, int]:
    """All pixels as they are stored, and the EXIF orientation."""
    if header is not None:
        pixels = jpeg.decode_jpeg(encoded)
        if pixels is not None:
            return pixels, header.orientation
    return pillow.decode(encoded)
