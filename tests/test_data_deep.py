"""Pictures of 16 bits per channel, and of formats that a package or a build may give."""

import io
import logging
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnetv2_jax.data.pictures import deep, formats
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.formats import READ, how_to_decode, how_to_read
from effnetv2_jax.data.pictures.pillow import FORMATS
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.data.sources.unlabelled import list_pictures

DEPTHS = (8, 10, 12, 14, 16)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def ramp(depth: int) -> np.ndarray:
    """All values of a picture of so many bits, or as many as there is room for."""
    return np.linspace(0, 2**depth - 1, 64 * 48).reshape(48, 64).astype(np.uint16)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_fewer_than_16_bits_is_not_black(depth: int, kind: str) -> None:
    values = ramp(depth)
    pixels = decode(encoded(Image.fromarray(values), kind))
    np.testing.assert_array_equal(pixels[..., 0], values >> (depth - 8))
    assert (pixels.min(), pixels.max(), pixels.shape) == (0, 255, (48, 64, 3))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_fewer_than_16_bits_are_not_black(depth: int, ending: str, alpha: bool) -> None:
    values = np.stack([ramp(depth), ramp(depth)[::-1], ramp(depth) // 2], -1)
    opaque = np.full((48, 64, 1), 2**16 - 1, np.uint16)
    stored = np.concatenate([values[..., ::-1], opaque], -1) if alpha else values[..., ::-1]
    _, data = cv2.imencode(ending, np.ascontiguousarray(stored))
    np.testing.assert_array_equal(decode(data.tobytes()), values >> (depth - 8))


def test_what_lies_behind_transparent_colours_of_12_bits_is_white() -> None:
    stored = np.zeros((8, 8, 4), np.uint16)
    stored[..., 0] = 4095  # Blue.
    stored[:4, :, 3] = 2**16 - 1
    _, data = cv2.imencode(".png", stored)
    pixels = decode(data.tobytes())
    assert (pixels[:4] == (0, 0, 255)).all()
    assert (pixels[4:] == 255).all()


@pytest.mark.parametrize("largest", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_netpbm_states_its_largest_value(largest: int, kind: str) -> None:
    values = np.linspace(0, largest // 2, 48 * (3 if kind == "P6" else 1))
    stored = values.astype("u1" if largest == 255 else ">u2").tobytes()
    pixels = decode(f"{kind} 8 6 {largest}\n".encode() + stored)
    # Half of it stays half, however few bits that needs.
    assert 126 <= pixels.max() <= 128


def test_tiff_of_12_bits_states_it() -> None:
    rows = bytes([0x10, 0x00, 0x80] * 8)  # 256 and 128, of at most 4095.
    tags = {256: 16, 257: 1, 258: 12, 259: 1, 262: 1, 273: 200, 277: 1, 278: 1, 279: len(rows)}
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in tags.items()
    )
    data = b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4)
    pixels = decode(data.ljust(200, b"\0") + rows)
    assert pixels[0, :2, 0].tolist() == [16, 8]


@given(st.integers(0, 2**16 - 1))
@settings(deadline=None)
def test_the_largest_value_is_at_least_a_quarter_of_the_range(largest: int) -> None:
    value = largest >> (deep.depth_of(largest) - 8)
    assert value <= 255
    assert value >= 64 or largest < 256


def test_how_it_is_scaled_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    deep._say.cache_clear()
    data = encoded(Image.fromarray(ramp(12)), "PNG")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            decode(data)
        decode(encoded(Image.fromarray(ramp(16)), "PNG"))
    (message,) = caplog.messages
    assert "no value above 4095, and is read as one of 12 bits" in message


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_range_are_refused(dtype: Any) -> None:
    data = encoded(Image.fromarray(np.zeros((4, 4), dtype)), "TIFF")
    with pytest.raises(DecodeError, match="no known range; convert it to 8 or 16 bits"):
        decode(data)


@pytest.mark.parametrize("format", [f for f in READ if f.pillow in ("AVIF", "JPEG2000", "HEIF")])
def test_formats_that_are_not_in_every_build(format: Any) -> None:
    picture = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((16, 16), np.uint8))
    image = Image.fromarray(np.stack([picture] * 3, -1))
    pixels = decode(encoded(image, format.pillow))
    assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 3


def test_what_to_install_is_known_of_formats_that_are_not_here() -> None:
    missing = {"AVIF", "JPEG2000", "HEIF"} - {each.pillow for each in READ}
    endings = {".avif": "AVIF", ".jp2": "JPEG2000", ".heic": "HEIF", ".heif": "HEIF"}
    for ending, kind in endings.items():
        assert (how_to_read(ending) is not None) == (kind in missing)
    assert how_to_read(".jpg") is None
    assert how_to_read(".cr2") is None


@pytest.mark.skipif("HEIF" in FORMATS, reason="it is read here")
def test_a_picture_that_a_package_would_read_says_so() -> None:
    with pytest.raises(DecodeError, match="known format; to read it: pip install pillow-heif"):
        decode(b"\0\0\0\x18ftypheic")


@pytest.mark.parametrize(
    ("head", "ending"),
    [
        (b"\0\0\0\x18ftypheic", ".heic"),
        (b"\0\0\0\x1cftypavif", ".avif"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
        (b"\xff\x4f\xff\x51\0\0", ".jp2"),
    ],
)
def test_formats_are_known_by_how_they_begin(
    head: bytes, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "how_to_read", lambda ending: f"what reads {ending}")
    assert how_to_decode(head) == f"what reads {ending}"
    assert how_to_decode(b"no picture") is None


def test_endings_of_pictures(tmp_path: pathlib.Path) -> None:
    names = "a.JPG b.jpe c.jfif d.PGM e.ppm f.webp g.tif h.bmp i.gif j.jpg.png"
    for name in [*names.split(), "k.cr2", "l.png.txt"]:
        (tmp_path / name).touch()
    found = [pathlib.Path(path).name for path in list_pictures([str(tmp_path)])]
    assert " ".join(found) == names
