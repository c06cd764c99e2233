"""Pictures of more pixels than are decoded as a whole."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from effnetv2_jax import preprocess
from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import EvalExamples, Unreadable, make_batches
from effnetv2_jax.data.pictures.decode import decode, decode_scaled, open_picture
from effnetv2_jax.data.prepare.recode import recode
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.data.sources.unlabelled import FilesSource
from effnetv2_jax.preprocessing import squashed

WIDTH, HEIGHT = 610, 403
LIMIT = 100_000
"""Of pixels, below that of `photograph`."""


def photograph(kind: str = "JPEG", **options: Any) -> bytes:
    """Smooth at large and rough at small, as photographs are."""
    random = np.random.default_rng(0)
    parts: list[np.ndarray] = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (rows, rows, 3), np.uint8)).resize(
                (WIDTH, HEIGHT), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        * weight
        for rows, weight in ((5, 0.6), (40, 0.3), (200, 0.1))
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.sum(parts, axis=0).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = photograph(quality=92)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_limit_is_named(kind: str) -> None:
    encoded = photograph(kind)
    for read in (decode, open_picture):
        with pytest.raises(DecodeError, match=f"{WIDTH} x {HEIGHT} pixels, more than max_pixels"):
            read(encoded, max_pixels=LIMIT)
    with pytest.raises(DecodeError, match="max_pixels, 100,000"):
        preprocess(encoded, like=squashed(32), max_pixels=LIMIT)
    assert decode(encoded, max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)


def test_a_run_takes_the_limit_from_its_config(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(JPEG)
    for limit, readable in ((LIMIT, False), (WIDTH * HEIGHT, True)):
        examples = EvalExamples(
            data=DataConfig(max_pixels=limit, threads=1),
            preprocessing=squashed(32),
            batch_size=1,
        )
        unreadable = Unreadable(1, log=False)
        (batch,) = make_batches(FilesSource([str(path)]), examples, unreadable=unreadable)
        assert batch["mask"][0] == readable
        assert bool(unreadable.reasons) != readable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("short_side", [40, 64, 90])
def test_scaled_decoding_is_close_to_the_whole(short_side: int, options: dict[str, Any]) -> None:
    encoded = photograph(quality=92, **options)
    fixed: dict[str, Any] = {"quality": 100, "check": True, "exif": False}
    scaled = recode(encoded, short_side=short_side, max_pixels=LIMIT, **fixed)
    whole = recode(encoded, short_side=short_side, **fixed)
    found, expected = (decode(each).astype(int) for each in (scaled, whole))
    assert found.shape == expected.shape
    assert min(found.shape[:2]) == short_side
    # Levels of 255: photographs are nearer, see docs/data.md.
    assert np.abs(found - expected).mean() < 2.5
    assert np.quantile(np.abs(found - expected), 0.99) <= 10


def test_no_more_is_decoded_than_is_wanted() -> None:
    found = decode_scaled(JPEG, least=100, max_pixels=LIMIT)
    assert found is not None
    assert found.pixels.shape == (-(-HEIGHT * 2 // 8), -(-WIDTH * 2 // 8), 3)
    assert (found.height, found.width) == (HEIGHT, WIDTH)
    assert decode_scaled(JPEG, least=100) is None, "it is decoded as a whole, as ever"
    assert decode_scaled(photograph("PNG"), least=100, max_pixels=LIMIT) is None


def test_scaled_pictures_are_turned() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    encoded = photograph(quality=92, exif=exif)
    found = decode_scaled(encoded, least=100, exif=True, max_pixels=LIMIT)
    usual = decode_scaled(encoded, least=100, max_pixels=LIMIT)
    assert found is not None
    assert usual is not None
    assert (found.height, found.width) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(found.pixels, np.rot90(usual.pixels, -1))


def test_what_is_too_large_even_so_is_refused() -> None:
    options: dict[str, Any] = {"quality": 95, "check": True, "exif": False, "max_pixels": 9000}
    with pytest.raises(DecodeError, match=r"610 x 403 pixels, too many .* max_pixels=9,000"):
        recode(JPEG, short_side=80, **options)
    with pytest.raises(DecodeError, match="pixels, progressive, too many"):
        recode(photograph(progressive=True), short_side=20, **options)
    assert recode(JPEG, short_side=20, **options)
    with pytest.raises(DecodeError, match="more than max_pixels"):
        recode(JPEG, short_side=None, **options)
    buffer = io.BytesIO()
    Image.new("CMYK", (WIDTH, HEIGHT)).save(buffer, "JPEG")
    for faulty in (buffer.getvalue(), JPEG[: len(JPEG) // 2]):
        with pytest.raises(DecodeError, match="more than max_pixels"):
            recode(faulty, short_side=20, **options)


MEASURE = """
import resource, sys
from effnetv2_jax.data.prepare.recode import recode
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
encoded = open(sys.argv[1], "rb").read()
before = peak()
recode(encoded, short_side=384, quality=95, check=True, exif=True)
print(peak() - before)
"""


@pytest.mark.slow
def test_108_megapixels_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "108.jpg"
    row = np.linspace(0, 255, 12_000).astype(np.uint8)[None, :, None]
    Image.fromarray(np.broadcast_to(row, (9_000, 12_000, 3)).copy()).save(path, quality=90)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True
    )
    assert float(measured.stdout) < 60, "MiB; as a whole it would take 309"
