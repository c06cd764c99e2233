"""What can go wrong with pictures and their files, before a run and under it."""

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from pictures import photographs
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import (
    DataError,
    EvalExamples,
    HostBatch,
    Order,
    Source,
    TrainExamples,
    Unreadable,
    make_batches,
    open_source,
)
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.limits import MAX_BYTES, MAX_PIXELS, MAX_SCANS
from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.pictures.pillow import FORMATS
from effnetv2_jax.data.prepare.array_record_set import Recipe, prepare
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.data.sources.folder import FolderSource
from effnetv2_jax.data.sources.tfrecord import TfrecordSource
from effnetv2_jax.data.sources.tfrecord_index import FOOTER, HEADER
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.system.checksums import masked_crc32c

Batches = Generator[HostBatch, None, None]

PHOTOGRAPHS = [Image.fromarray(pixels) for pixels in photographs((48, 64), 4)]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(PHOTOGRAPHS[0], "JPEG")
PNG = encoded(PHOTOGRAPHS[1], "PNG")


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(width: int, height: int, content: bytes = b"", *, before: bytes = b"") -> bytes:
    """A PNG of 8-bit RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return PNG[:8] + header + before + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    parts = [packer.compress(block[: count - start]) for start in range(0, count, len(block))]
    return b"".join(parts) + packer.flush()


def webp_with_canvas(width: int, height: int) -> bytes:
    frames = {"save_all": True, "append_images": PHOTOGRAPHS[1:2]}
    data = bytearray(encoded(PHOTOGRAPHS[0], "WEBP", **frames))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def gif_with_canvas(width: int, height: int) -> bytes:
    data = bytearray(encoded(PHOTOGRAPHS[0], "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(PHOTOGRAPHS[0], "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def tiff_with_tiles(width: int, height: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of this size, compressed."""
    content = zeros(2**20)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: width, 323: height, 324: 200, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return header.ljust(200, b"\0") + content


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "it is empty"),
    "text.png": (lambda: b"not a picture at all", "no picture"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "no picture"),
    "drawing.jpg": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "no picture",
    ),
    "half.jpg": (lambda: JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "half.png": (lambda: PNG[: len(PNG) // 2], "cannot be decoded"),
    "zeros.jpg": (lambda: JPEG[:2] + bytes(len(JPEG) - 2), "^it "),
    "promise.png": (lambda: png(12_000, 12_000), "pixels"),
    "promise.webp": (lambda: webp_with_canvas(12_000, 12_000), "pixels"),
    "promise-larger.webp": (lambda: webp_with_canvas(16_384, 16_384), "pixels"),
    "canvas.gif": (lambda: gif_with_canvas(12_000, 12_000), "pixels"),
    "canvas-larger.gif": (lambda: gif_with_canvas(65_535, 65_535), "pixels"),
    "tiles.tif": (lambda: tiff_with_tiles(16_384, 16_384), "tiles of 16384 x 16384 pixels"),
    "scans.jpg": (lambda: jpeg_with_scans(MAX_SCANS + 1), "it has 101 scans"),
    "text-bomb.png": (
        lambda: png(64, 48, zeros(64 * 200), before=chunk(b"zTXt", b"a\0\0" + zeros(2**24))),
        "(?i)too large",
    ),
    "profile-bomb.png": (
        lambda: png(64, 48, zeros(64 * 200), before=chunk(b"iCCP", b"a\0\0" + zeros(2**24))),
        "(?i)too large",
    ),
}
"""Files by name, and why they are refused."""

WARNINGS = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def write(root: pathlib.Path, count: int = 4) -> DataConfig:
    """Sound pictures of two classes, as a source."""
    for label in "ab":
        (root / label).mkdir(parents=True)
        for index in range(count):
            PHOTOGRAPHS[index % 4].save(root / label / f"sound{index}.png")
    return DataConfig(source="folder", path=str(root), validation_share=0.01, threads=2)


def source_of(data: DataConfig) -> FolderSource:
    return FolderSource(data.path, "train", validation_share=0)


def trained(source: Source, data: DataConfig, *, size: int = 8, **options: Any) -> Batches:
    order = Order(len(source), seed=0)
    examples = TrainExamples(order=order, data=data, preprocessing=squashed(32), batch_size=size)
    return make_batches(source, examples, **options)


def taken(
    source: Source, data: DataConfig, *, batches: int = 2, size: int = 8, **options: Any
) -> list[HostBatch]:
    with contextlib.closing(trained(source, data, size=size, **options)) as found:
        return list(itertools.islice(found, batches))


def joined(parts: Sequence[HostBatch]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def same(first: Iterable[HostBatch], second: Iterable[HostBatch]) -> None:
    for one, other in zip(first, second, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@WARNINGS
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_sound_picture_is_refused_and_says_why(name: str) -> None:
    make, reason = BROKEN[name]
    with pytest.raises(DecodeError, match=reason):
        decode(make(), exif=True)


@WARNINGS
def test_broken_files_are_named_counted_and_replaced_everywhere_alike(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write(tmp_path)
    for number, (name, (make, _)) in enumerate(BROKEN.items()):
        (tmp_path / "ab"[number % 2] / name).write_bytes(make())
    source, count = source_of(data), len(BROKEN) + 8
    broken = {str(tmp_path / "ab"[number % 2] / name) for number, name in enumerate(BROKEN)}
    unreadable = Unreadable(len(broken))
    with caplog.at_level(logging.WARNING):
        whole = taken(source, data, batches=2, size=count, unreadable=unreadable)
    assert set(unreadable.reasons) == broken
    for path in broken:
        assert sum(f": {path}: " in message for message in caplog.messages) == 1
    for threads in (1, 4):
        again = dataclasses.replace(data, threads=threads)
        same(whole, taken(source, again, batches=2, size=count))
    halves = [
        taken(source, data, batches=2, size=count, process_index=index, process_count=2)
        for index in (0, 1)
    ]
    same(whole, [joined(parts) for parts in zip(*halves)])
    examples = EvalExamples(data=data, preprocessing=squashed(32), batch_size=count)
    evaluated = list(make_batches(source, examples))
    assert evaluated[0]["mask"].sum() == 8
    with pytest.raises(DataError, match=rf"{len(broken)} pictures cannot be read"):
        taken(source, dataclasses.replace(data, max_unreadable=len(broken) - 1), size=count)


CROWDED = """
import os, resource, sys, threading
from effnetv2_jax.data import EvalExamples, Unreadable, make_batches, open_source
from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.preprocessing import squashed

data = DataConfig(source="folder", path=sys.argv[1], validation_share=0.5, threads=2)
source, unreadable = open_source(data, "eval"), Unreadable(0)
examples = EvalExamples(data=data, preprocessing=squashed(8), batch_size=4)

def readable():
    found = make_batches(source, examples, unreadable=unreadable)
    return sum(int(batch["mask"].sum()) for batch in found)

before = readable()
FILES = resource.RLIMIT_NOFILE
soft, hard = resource.getrlimit(FILES)
room = threading.Timer(float(sys.argv[2]), resource.setrlimit, (FILES, (soft, hard)))
resource.setrlimit(FILES, (len(os.listdir("/proc/self/fd")) - 1, hard))
try:
    open("/dev/null")
except OSError as error:
    print(error.strerror)
room.start()
try:
    print(before == readable() > 0, len(unreadable))
finally:
    room.join()
"""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.5, "True 0"), (9, "DataError: no room on this machine to read ")]
)
def test_what_may_pass_is_read_again(tmp_path: pathlib.Path, seconds: float, expected: str) -> None:
    write(tmp_path)
    command = [sys.executable, "-c", CROWDED, str(tmp_path), str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.startswith("Too many open files")
    assert expected in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["jpeg.png", "png.jpg", "webp.jpg", "gif.jpeg", "bmp.webp"])
def test_the_name_of_a_file_does_not_matter(tmp_path: pathlib.Path, name: str) -> None:
    data = write(tmp_path)
    kind = name.split(".")[0].upper()
    (tmp_path / "a" / name).write_bytes(encoded(PHOTOGRAPHS[2], kind))
    unreadable = Unreadable(0)
    taken(source_of(data), data, unreadable=unreadable, size=9)
    assert not len(unreadable)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert abs(decode(data).astype(int) - (255, 0, 0)).max() < 3


def test_a_damaged_orientation_does_not_cost_a_picture_of_any_format() -> None:
    exif = b"MM\0\x2a\xff\xff\xff\xff broken"
    for data in (encoded(PHOTOGRAPHS[0], kind, exif=exif) for kind in ("PNG", "WEBP")):
        assert decode(data, exif=True).shape == (48, 64, 3)


@pytest.mark.parametrize("size", [(1, 2**20 + 9), (2**20 + 9, 1), (1025, 1025)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "I;16"])
def test_pictures_converted_in_pieces_have_the_pixels_of_the_whole(
    size: tuple[int, int], mode: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    if mode == "I;16":
        data = encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "TIFF")
        expected = np.repeat(pixels[..., :1], 3, axis=2)
    elif mode == "CMYK":
        image = Image.fromarray(pixels, "CMYK")
        data, expected = encoded(image, "TIFF"), np.asarray(image.convert("RGB"))
    else:
        image = Image.fromarray(pixels, "RGBA")
        image = image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode)
        data = encoded(
            image, "PNG", compress_level=1, **({"transparency": 3} if mode == "P" else {})
        )
        with Image.open(io.BytesIO(data)) as reopened:
            rgba = reopened.convert("RGBA")
        white = Image.new("RGBA", size, "white")
        white.alpha_composite(rgba)
        expected = np.asarray(white.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


PEAK = """
import pathlib, sys
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.record import DecodeError

def peak():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

small, *files = [pathlib.Path(name).read_bytes() for name in sys.argv[1:]]
decode(small, exif=True)
for data in files:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        pixels = decode(data, exif=True).nbytes // 3
    except DecodeError:
        pixels = 0
    print(pixels, peak() - before, len(data))
    data = None
"""

LARGE: dict[str, Callable[[Image.Image], bytes]] = {
    "baseline JPEG": lambda image: encoded(image.convert("RGB"), "JPEG"),
    "progressive JPEG": lambda image: encoded(
        image.convert("RGB"), "JPEG", progressive=True, subsampling=0
    ),
    "progressive CMYK JPEG": lambda image: encoded(
        image.convert("CMYK"), "JPEG", progressive=True, subsampling=0
    ),
    "transparent PNG": lambda image: encoded(image, "PNG", compress_level=1),
    "animated PNG": lambda image: encoded(
        image, "PNG", compress_level=1, save_all=True, append_images=[image.rotate(180)]
    ),
    "grey PNG with transparency": lambda image: encoded(
        image.convert("LA"), "PNG", compress_level=1
    ),
    "GIF": lambda image: encoded(image.convert("L"), "GIF"),
    "TIFF": lambda image: encoded(image, "TIFF", compression="tiff_lzw"),
    "transparent WebP": lambda image: encoded(image, "WEBP", lossless=True, quality=0, method=0),
    "animated WebP": lambda image: encoded(
        image, "WEBP", method=0, save_all=True, append_images=[image.rotate(180)]
    ),
}
if "AVIF" in FORMATS:
    LARGE["AVIF"] = lambda image: encoded(image, "AVIF", speed=10)


@pytest.mark.parametrize(
    "side", [2048, pytest.param(8192, marks=pytest.mark.slow)], ids="{} pixels wide".format
)
def test_memory_stays_within_the_stated_bound(tmp_path: pathlib.Path, side: int) -> None:
    image = PHOTOGRAPHS[0].resize((side, side), Image.Resampling.NEAREST)
    image.putalpha(image.getchannel(0))
    paths = [tmp_path / "small"]
    paths[0].write_bytes(JPEG)
    for name, make in LARGE.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(make(image))
    command = [sys.executable, "-c", PEAK, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, line in zip(LARGE, result.stdout.splitlines(), strict=True):
        pixels, peak, size = map(int, line.split())
        assert pixels == side**2, name
        # A piece that is converted counts for more in a smaller picture.
        assert peak < 20 * pixels + 3 * size + 32 * 2**20, (name, peak / pixels)


@WARNINGS
def test_what_is_refused_takes_no_memory(tmp_path: pathlib.Path) -> None:
    paths = [tmp_path / "small"]
    paths[0].write_bytes(JPEG)
    for name, (make, _) in BROKEN.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(make())
    command = [sys.executable, "-W", "ignore", "-c", PEAK, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, line in zip(BROKEN, result.stdout.splitlines(), strict=True):
        pixels, peak, size = map(int, line.split())
        assert pixels == 0, name
        assert peak < 3 * size + 16 * 2**20, (name, peak)


def test_fifty_megapixels_are_read() -> None:
    image = PHOTOGRAPHS[0].resize((8160, 6144))
    assert decode(encoded(image, "JPEG")).shape == (6144, 8160, 3)
    assert MAX_PIXELS > 8160 * 6144


# Files under the run.


def test_an_enormous_file_is_not_read(tmp_path: pathlib.Path) -> None:
    data = write(tmp_path)
    path = tmp_path / "a/enormous.png"
    path.touch()
    os.truncate(path, MAX_BYTES + 1)  # Sparse: it takes no room.
    unreadable = Unreadable(1)
    taken(source_of(data), data, size=9, unreadable=unreadable)
    assert list(unreadable.reasons) == [str(path)]
    assert "more than 536,870,912 bytes" in unreadable.reasons[str(path)]
    with pytest.raises(DecodeError, match="bytes, more than"):
        decode(bytes(MAX_BYTES + 1))


def _vanish(path: pathlib.Path) -> None:
    path.unlink()


def _become_folder(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def _become_pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_loop(path: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _become_text(path: pathlib.Path) -> None:
    path.write_text("overwritten")


def _become_shorter(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    "change",
    [_vanish, _become_folder, _become_pipe, _become_loop, _become_text, _become_shorter],
    ids=lambda change: change.__name__,
)
def test_a_file_that_changes_under_the_run_gives_way_to_the_next(
    tmp_path: pathlib.Path, change: Callable[[pathlib.Path], None]
) -> None:
    data = write(tmp_path)
    source = source_of(data)
    unreadable = Unreadable(1)
    soon = dataclasses.replace(data, prefetch_batches=1)
    batches = trained(source, soon, unreadable=unreadable)
    with contextlib.closing(batches):
        next(batches)
        path = pathlib.Path(source[3].key)
        change(path)
        for _ in range(6):  # Some were made before.
            last = next(batches)
    assert list(unreadable.reasons) == [str(path)]
    # From then on, the batches are those of a run that begins with the data as they are.
    same([last], taken(source, data, batches=7)[-1:])
    with pytest.raises(DataError, match="1 pictures cannot be read"):
        taken(source, dataclasses.replace(data, max_unreadable=0))


@contextlib.contextmanager
def _without_privileges() -> Iterator[None]:
    """As another user, since root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_loses_its_permission_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "pictures"
        data = write(root)
        pathlib.Path(folder).chmod(0o755)
        source = source_of(data)
        path = pathlib.Path(source[0].key)
        path.chmod(0)
        unreadable = Unreadable(1)
        with _without_privileges():
            taken(source, data, unreadable=unreadable)
        assert list(unreadable.reasons) == [str(path)]
        assert "Permission denied" in unreadable.reasons[str(path)]


def test_a_folder_that_vanishes_stops_the_run(tmp_path: pathlib.Path) -> None:
    data = dataclasses.replace(write(tmp_path / "pictures"), max_unreadable=3)
    source = source_of(data)
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"\d pictures cannot be read.*No such file"):
        taken(source, data)


def test_a_pipe_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file") as found:
        read_picture(str(path))
    assert found.value.filename == str(path)


# Files of many examples.


@pytest.fixture(scope="module")
def array_records(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A set of 3 files with 10 examples each."""
    root = tmp_path_factory.mktemp("array_records")
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    for number, pixels in enumerate(noise):
        (root / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "pictures" / "ab"[number % 2] / f"{number}.png")
    source = FolderSource(str(root / "pictures"), "train", validation_share=0)
    prepare({"train": source}, root / "sets", "mine", Recipe(shards=3))
    return root / "sets"


def opened(root: pathlib.Path, sets: pathlib.Path) -> tuple[list[pathlib.Path], DataConfig]:
    shutil.copytree(sets, root / "sets")
    data = DataConfig(source="tfds", path=str(root / "sets"), name="mine", threads=2)
    files = sorted((root / "sets/mine/1.0.0").glob("*.array_record-*"))
    return files, data


def lost(source: Source) -> list[int]:
    """The examples that cannot be read."""
    numbers = []
    for index in range(len(source)):
        try:
            source[index]
        except DecodeError:
            numbers.append(index)
    return numbers


def test_a_missing_file_of_a_set_is_named_at_once(
    tmp_path: pathlib.Path, array_records: pathlib.Path
) -> None:
    files, data = opened(tmp_path, array_records)
    files[1].unlink()
    with pytest.raises(
        DataError, match=rf"1 of 3 files of mine are missing in .*: {files[1].name}"
    ):
        open_source(data, "train")
    some = dataclasses.replace(data, train_split="train[:10]+train[20:]")
    assert len(open_source(some, "train")) == 20


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("damage", ["vanish", "empty", "half", "noise", "byte"])
def test_damage_to_a_file_of_a_set_costs_its_own_examples_alone(
    tmp_path: pathlib.Path, array_records: pathlib.Path, damage: str, read_before: bool
) -> None:
    files, data = opened(tmp_path, array_records)
    source = open_source(data, "train")
    if read_before:
        assert lost(source) == []
    size = files[1].stat().st_size
    if damage == "vanish":
        files[1].unlink()
    elif damage == "byte":
        with open(files[1], "r+b") as stream:
            stream.seek(70_000)
            stream.write(bytes([stream.read(1)[0] ^ 1]))
    elif damage == "noise":
        with open(files[1], "r+b") as stream:
            stream.write(np.random.default_rng(0).bytes(size))
    else:
        os.truncate(files[1], 0 if damage == "empty" else 70_000)
    if damage == "vanish" and read_before:
        assert lost(source) == []  # It is open, and so still there.
        return
    hit = lost(source)
    assert hit
    assert set(hit) <= set(range(10, 20))
    unreadable = Unreadable(len(hit))
    whole = taken(source, data, batches=2, size=30, unreadable=unreadable)
    assert set(unreadable.reasons) == {f"{source.name} example {index}" for index in hit}
    same(whole, taken(source, dataclasses.replace(data, threads=4), batches=2, size=30))
    with pytest.raises(DataError, match=rf"{len(hit)} pictures cannot be read"):
        taken(source, dataclasses.replace(data, max_unreadable=len(hit) - 1), size=30)


def test_tfrecord_files_may_change_under_the_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    records = [
        tfrecord(encoded(image, "PNG"), label % 2) for label, image in enumerate(PHOTOGRAPHS)
    ]
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(b"".join(records))
    data = DataConfig(threads=2)
    source = TfrecordSource(str(tmp_path), "train", num_classes=2)
    assert lost(source) == []
    os.truncate(path, len(records[0]) + len(records[1]) + 20)
    assert lost(source) == [2, 3]
    path.write_bytes(b"".join(records[::-1]))
    assert set(lost(source)) >= {1, 2}
    path.write_bytes(b"")
    assert lost(source) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="none of the 4 pictures"):
        taken(source, data)
    with pytest.raises(DataError, match="3 pictures cannot be read"):
        taken(source, dataclasses.replace(data, threads=1, max_unreadable=2))


def tfrecord(picture: bytes, label: int) -> bytes:
    example = tf_example_pb2.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(picture)
    example.features.feature["image/class/label"].int64_list.value.append(label)
    content = example.SerializeToString()
    length = len(content).to_bytes(8, "little")
    header = HEADER.pack(len(content), masked_crc32c(length))
    return header + content + FOOTER.pack(masked_crc32c(content))


def test_nothing_is_mapped_into_memory(tmp_path: pathlib.Path, array_records: pathlib.Path) -> None:
    """What is mapped kills the process when its file is truncated."""
    _, data = opened(tmp_path, array_records)
    source = open_source(data, "train")
    assert lost(source) == []
    assert ".array_record" not in pathlib.Path("/proc/self/maps").read_text()
