"""Pictures of every kind that people have, whole and damaged."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnetv2_jax.data.pictures import pillow
from effnetv2_jax.data.pictures.box import Box, Pixels
from effnetv2_jax.data.pictures.decode import decode, open_picture
from effnetv2_jax.data.record import DecodeError

RGB = np.zeros((24, 32, 3), np.uint8)
RGB[:12, :16] = (220, 30, 40)
RGB[:12, 16:] = (30, 200, 60)
RGB[12:, :16] = (40, 60, 210)
RGB[12:, 16:] = (240, 240, 20)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0)


def close(pixels: np.ndarray, expected: np.ndarray, tolerance: int = 12) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    # The blocks' edges ring in lossy formats; compare away from them.
    for rows in (slice(3, 9), slice(15, 21)):
        for columns in (slice(3, 13), slice(19, 29)):
            np.testing.assert_allclose(
                pixels[rows, columns].astype(int),
                expected[rows, columns].astype(int),
                atol=tolerance,
            )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_usual_formats(kind: str) -> None:
    close(decode(encoded(Image.fromarray(RGB), kind)), RGB)


def test_progressive_jpeg_with_subsampled_chroma() -> None:
    close(decode(encoded(Image.fromarray(RGB), "JPEG", progressive=True, subsampling=2)), RGB)


def test_jpeg_has_the_same_pixels_as_pillow() -> None:
    np.testing.assert_array_equal(decode(JPEG), np.asarray(Image.open(io.BytesIO(JPEG))))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_rgb(kind: str) -> None:
    pixels = decode(encoded(Image.new("L", (32, 24), 77), kind))
    assert pixels.shape == (24, 32, 3)
    assert (pixels == 77).all()


def test_bilevel_and_palette() -> None:
    assert (decode(encoded(Image.new("1", (5, 4), 1), "PNG")) == 255).all()
    close(decode(encoded(Image.fromarray(RGB).quantize(8), "PNG")), RGB)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    rgba = np.dstack([RGB, np.zeros((24, 32), np.uint8)])
    rgba[:12, :, 3] = 255
    expected = RGB.copy()
    expected[12:] = 255
    close(decode(encoded(Image.fromarray(rgba), kind, lossless=True)), expected)


def test_half_transparent_grey_and_transparent_palette_colour() -> None:
    assert (decode(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG")) == 127).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert (decode(encoded(palette, "PNG", transparency=0)) == 255).all()
    assert (decode(encoded(palette, "PNG", transparency=1)) == (10, 20, 30)).all()


def test_sixteen_bit_grey_png_keeps_its_high_byte() -> None:
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(pixels[:, :, 0], (grey >> 8).astype(np.uint8))


def test_cmyk_jpeg_of_adobe_and_of_others() -> None:
    adobe = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    close(decode(adobe), RGB)
    # Without Adobe's marker, values are ink as they stand: invert and drop the marker.
    inverted = Image.fromarray(255 - np.asarray(Image.fromarray(RGB).convert("CMYK")), "CMYK")
    data = encoded(inverted, "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    close(decode(data[:start] + data[start + 2 + length :]), RGB)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_only_where_the_source_says_so(kind: str, orientation: int) -> None:
    upright = Image.fromarray(RGB)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, quality=95)
    close(decode(data, exif=True), RGB)
    assert decode(data).shape[:2] == (stored.height, stored.width)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    exif = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff broken"
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]
    close(decode(data, exif=True), RGB)
    no_tags = b"Exif\0\0"
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(no_tags) + 2) + no_tags + JPEG[2:]
    close(decode(data, exif=True), RGB)


def test_harmless_garbage_in_a_jpeg_is_forgiven() -> None:
    close(decode(JPEG + b"garbage"), RGB)
    # libjpeg warns of bytes before a marker, and its strict reader refuses the file.
    table = JPEG.index(b"\xff\xdb", 2)
    close(decode(JPEG[:table] + b"\0\0\0" + JPEG[table:]), RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text called picture.jpg", "no picture"),
        (JPEG[: len(JPEG) // 2], "cannot be decoded"),
        (JPEG[:20], "^it "),
        (b"\xff\xd8\xff", "^it "),
        (encoded(Image.fromarray(RGB), "PNG")[:-30], "cannot be decoded"),
        (encoded(Image.fromarray(RGB), "PNG")[:40], "^it "),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "no known range"),
        (encoded(Image.new("I", (4, 4)), "TIFF"), "no known range"),
    ],
    ids=[
        "empty",
        "text",
        "half a JPEG",
        "JPEG header",
        "JPEG marker",
        "most of a PNG",
        "PNG header",
        "float TIFF",
        "32-bit TIFF",
    ],
)
def test_unreadable_files_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(data)


def png_of_size(side: int) -> bytes:
    """A PNG that promises a size without having the data."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_of_size(side: int) -> bytes:
    """A JPEG that promises a size without having the data."""
    data = bytearray(JPEG)
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 60_000])
@pytest.mark.parametrize("make", [png_of_size, jpeg_of_size])
def test_decompression_bombs_are_refused_before_decoding(
    make: Callable[[int], bytes], side: int
) -> None:
    with pytest.raises(DecodeError, match="pixels"):
        decode(make(side))


PHOTO = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
PHOTO[::2] //= 2


def oriented(orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(PHOTO), "JPEG", exif=exif, **options)


@settings(deadline=None, max_examples=150)
@given(
    orientation=st.integers(1, 8),
    options=st.sampled_from(
        [
            {"subsampling": 0},
            {"subsampling": 1},
            {"subsampling": 2},
            {"subsampling": 2, "restart_marker_rows": 1},
            {"subsampling": 2, "progressive": True},
        ]
    ),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_part_has_the_pixels_of_the_whole(
    orientation: int, options: dict[str, Any], edges: tuple[float, ...]
) -> None:
    data = oriented(orientation, **options)
    whole = decode(data, exif=True)

    picture = open_picture(data, exif=True)
    height, width = picture.height, picture.width
    assert (height, width) == whole.shape[:2]
    top, bottom = sorted(round(edge * (height - 1)) for edge in edges[:2])
    left, right = sorted(round(edge * (width - 1)) for edge in edges[2:])
    box = Box(top, left, bottom - top + 1, right - left + 1)
    np.testing.assert_array_equal(picture.part(box), box.cut(whole))


def upper(height: int, width: int) -> Box:
    return Box(1, 2, min(height - 1, 17), width - 2)


def upper_part(data: bytes) -> Pixels:
    picture = open_picture(data)
    return picture.part(upper(picture.height, picture.width))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "grey", "CMYK", "trailer", "4:4:0"])
def test_parts_of_every_kind_of_picture(kind: str) -> None:
    image = Image.fromarray(PHOTO)
    data = {
        "grey": lambda: encoded(image.convert("L"), "JPEG"),
        "CMYK": lambda: encoded(image.convert("CMYK"), "JPEG"),
        "trailer": lambda: encoded(image, "JPEG") + b"\0\0",
        "4:4:0": lambda: simplejpeg.encode_jpeg(PHOTO, colorsubsampling="440"),
    }.get(kind, lambda: encoded(image, kind))()
    whole = decode(data)
    np.testing.assert_array_equal(upper_part(data), upper(*whole.shape[:2]).cut(whole))


def test_rows_below_a_part_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    heights = []
    real = simplejpeg.decode_jpeg

    def spy(*args: Any, **options: Any) -> np.ndarray:
        pixels = real(*args, **options)
        heights.append(len(pixels))
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    thumbnail = encoded(Image.fromarray(PHOTO[:20, :20]), "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = oriented(1, subsampling=2)
    data = data[:2] + segment + data[2:]
    assert upper_part(data).shape == (17, 81, 3)
    assert heights == [20]


def test_a_picture_without_its_end_is_refused_whatever_the_part() -> None:
    data = oriented(1, quality=95)
    with pytest.raises(DecodeError, match="cannot be decoded"):
        upper_part(data[: len(data) * 2 // 3])
    with pytest.raises(DecodeError, match=r"^it "):
        upper_part(data[:40] + b"\xff\xd9")


def test_headers_that_state_two_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", _refuse)
    monkeypatch.setattr(pillow, "decode", lambda encoded, limit: (PHOTO[1:], 1))
    with pytest.raises(DecodeError, match="more than one size"):
        upper_part(oriented(1))


def _refuse(*_: object, **__: object) -> np.ndarray:
    raise ValueError


def test_damage_within_a_jpeg_changes_a_part_as_it_changes_the_whole() -> None:
    data = bytearray(oriented(1, quality=95))
    rng = np.random.default_rng(0)
    start = data.index(b"\xff\xda") + 20
    for _ in range(50):
        damaged = bytearray(data)
        at = int(rng.integers(start, len(data) - 40))
        # Without 255, which begins a marker: a wrong one can be fatal, and lie below the part.
        damaged[at : at + 20] = rng.integers(0, 255, 20, np.uint8).tobytes()
        whole = decode(bytes(damaged))
        np.testing.assert_array_equal(
            upper_part(bytes(damaged)), upper(*whole.shape[:2]).cut(whole)
        )
