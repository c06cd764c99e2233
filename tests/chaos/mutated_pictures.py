"""Damages real pictures in every way, and sends them through the input pipeline.

    python tests/chaos/mutated_pictures.py --count=2000 --seed=0 --out=RESULT.json

Every picture is decoded alone, under a limit of time, and then all of them are trained and
evaluated on: by one thread, by four, and by each of two processes. All this happens in processes of
their own, so that a crash or a hang is theirs.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import itertools
import json
import logging
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import (
    DecodeError,
    EvalExamples,
    Order,
    Record,
    TrainExamples,
    Unreadable,
    example_keys,
    make_batches,
    open_source,
)
from effnetv2_jax.data.batches.examples import Examples
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.limits import MAX_PIXELS, PEAK_BYTES_PER_PIXEL
from effnetv2_jax.preprocessing import squashed

SECONDS = 20.0
"""That a picture may take; the largest that are allowed need about two."""
BATCH = 20
PHOTOGRAPHS = Path(__file__).parents[1] / "pictures"

_RUNS = {
    "one thread": (1, 0, 1),
    "four threads": (4, 0, 1),
    "process 0 of 2": (2, 0, 2),
    "process 1 of 2": (2, 1, 2),
}
"""Threads, the process and the number of processes of each run through the pipeline."""
_ALONE = "decoding alone"
_PROCESSES = [[_ALONE, "one thread", "four threads"], ["process 0 of 2"], ["process 1 of 2"]]
"""What the processes do."""


class Picture(NamedTuple):
    """A damaged picture."""

    kind: str
    """Of the damage, and of the file."""
    original: bytes
    encoded: bytes


class Mutated:
    """Damaged pictures as a source: picture i has label i."""

    name = "mutated"
    exif = True
    fingerprint = "mutated"

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.class_names = tuple(map(str, range(len(pictures))))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Record:
        return Record(f"picture {index}", self.pictures[index].encoded, (index,))


# Originals.


def originals() -> dict[str, list[bytes]]:
    """Files of each format: photographs as they are, and in every kind that people have."""
    embedded = open_source(DataConfig(), "train")
    jpeg = [path.read_bytes() for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    jpeg += [embedded[index].encoded for index in range(0, 2000, 250)]
    photographs = [Image.open(io.BytesIO(data)).convert("RGB") for data in jpeg]
    exif = Image.Exif()
    exif[0x0112] = 6
    png, webp = [], []
    for first, second in itertools.pairwise(photographs):
        second = second.resize(first.size)
        clear = first.copy()
        clear.putalpha(second.convert("L"))
        deep = Image.fromarray(np.asarray(first.convert("L"), np.uint16) * 257)
        jpeg += [
            _encode(first, "JPEG", progressive=True, exif=exif),
            _encode(first.convert("CMYK"), "JPEG"),
            _encode(first.convert("L"), "JPEG", restart_marker_rows=1),
        ]
        png += [
            _encode(first, "PNG", exif=exif),
            _encode(clear, "PNG"),
            _encode(deep, "PNG"),
            _encode(first.quantize(64), "PNG", transparency=3),
            _encode(first, "PNG", save_all=True, append_images=[second]),
        ]
        webp += [
            _encode(first, "WEBP", exif=exif),
            _encode(clear, "WEBP", lossless=True),
            _encode(first, "WEBP", save_all=True, append_images=[second]),
        ]
    return {"JPEG": jpeg, "PNG": png, "WebP": webp}


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Damage.


def mutated(count: int, seed: int) -> list[Picture]:
    """Makes `count` damaged pictures, every format and kind of damage in turn."""
    sources = originals()
    every = [data for files in sources.values() for data in files]
    damages: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
        "bits": flip_bits,
        "truncated": truncate,
        "spliced": lambda data, rng: splice(data, every[rng.integers(len(every))], rng),
        "header": edit_header,
        "resized": resize_header,
    }
    pictures = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        form = list(sources)[number % len(sources)]
        damage = list(damages)[number // len(sources) % len(damages)]
        original = sources[form][rng.integers(len(sources[form]))]
        pictures.append(Picture(f"{form} {damage}", original, damages[damage](original, rng)))
    return pictures


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips 1 to 32 bits anywhere."""
    changed = bytearray(data)
    for _ in range(2 ** rng.integers(6)):
        changed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cuts the end off, or replaces it by zeros, as after a broken transfer."""
    stop = int(rng.integers(len(data)))
    return data[:stop] + bytes((len(data) - stop) * int(rng.integers(2)))


def splice(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def edit_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes sizes, markers, lengths or tables, with checksums that fit."""
    if data.startswith(b"\xff\xd8"):
        return _edit_jpeg(bytearray(data), rng)
    return _edit_png(data, rng) if data.startswith(b"\x89PNG") else _edit_webp(data, rng)


def resize_header(data: bytes, rng: np.random.Generator) -> bytes:
    """States another width and height, up to 16,000, and leaves the rest as it is."""
    width, height = (int(16_000 ** rng.random()) for _ in range(2))
    changed = bytearray(data)
    if data.startswith(b"\xff\xd8"):
        frame = re.search(rb"\xff[\xc0-\xc2]\0", data)
        assert frame is not None
        struct.pack_into(">HH", changed, frame.start() + 5, height, width)
    elif data.startswith(b"\x89PNG"):
        struct.pack_into(">II", changed, 16, width, height)
        struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
    elif data[12:16] == b"VP8X":
        changed[24:30] = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    elif data[12:16] == b"VP8L":
        (header,) = struct.unpack_from("<I", data, 21)
        struct.pack_into("<I", changed, 21, header >> 28 << 28 | height << 14 | width)
    else:
        struct.pack_into("<HH", changed, 26, width, height)
    return bytes(changed)


def _number(rng: np.random.Generator, size: int) -> bytes:
    """A number of `size` bytes: extreme, near a power of 2, or any."""
    bits = 8 * size
    near = 2 ** int(rng.integers(bits)) + int(rng.integers(-1, 2))
    choices = [0, 1, 2**bits - 1, near, int.from_bytes(rng.bytes(size))]
    return (choices[rng.integers(len(choices))] % 2**bits).to_bytes(size)


def _edit_jpeg(data: bytearray, rng: np.random.Generator) -> bytes:
    segments = [(match.start(), data[match.start() + 1]) for match in _SEGMENT.finditer(data)]
    start, marker = segments[rng.integers(len(segments))]
    length = int.from_bytes(data[start + 2 : start + 4])
    edit = rng.integers(6)
    if edit == 0:
        data[start + 2 : start + 4] = _number(rng, 2)
    elif edit == 1:
        data[start + 1] = int(rng.integers(0xC0, 0xFF))
    elif edit == 2:
        del data[start : start + 2 + length]
    elif edit == 3:
        data[start:start] = data[start : start + 2 + length] * int(2 ** rng.integers(8))
    elif edit == 4 or marker not in (0xC0, 0xC1, 0xC2):
        at = start + 4 + int(rng.integers(max(1, length - 2)))
        data[at : at + 1] = rng.bytes(1)
    else:
        at = start + 5 + 2 * int(rng.integers(2))
        data[at : at + 2] = _number(rng, 2)
    return bytes(data)


_SEGMENT = re.compile(rb"\xff[\xc0-\xc4\xda-\xdd\xe0-\xef]", re.DOTALL)


def _edit_png(data: bytes, rng: np.random.Generator) -> bytes:
    chunks: list[tuple[bytes, bytearray]] = []
    position = 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        chunks.append((kind, bytearray(data[position + 8 : position + 8 + length])))
        position += 12 + length
    number = int(rng.integers(len(chunks)))
    kind, content = chunks[number]
    edit = rng.integers(5)
    if edit == 0 or not content:
        chunks.insert(int(rng.integers(len(chunks))), (kind, content))
    elif edit == 1:
        chunks[number] = (bytes(rng.integers(65, 123, 4, np.uint8)), content)
    elif edit == 2:
        del chunks[number]
    elif edit == 3:
        content[rng.integers(len(content))] = int(rng.integers(256))
    else:
        # The header's width and height, or the first numbers of another chunk.
        at = 4 * int(rng.integers(2))
        content[at : at + 4] = _number(rng, 4)
    changed = bytearray(data[:8])
    for kind, content in chunks:
        check = zlib.crc32(kind + content)
        changed += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    if rng.integers(6) == 0:
        at = int(rng.integers(8, len(changed) - 4))
        changed[at : at + 4] = _number(rng, 4)
    return bytes(changed)


def _edit_webp(data: bytes, rng: np.random.Generator) -> bytes:
    changed, starts, position = bytearray(data), [], 12
    while position + 8 <= len(data):
        starts.append(position)
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    start = starts[rng.integers(len(starts))]
    edit = rng.integers(4)
    if edit == 0:
        changed[start + 4 : start + 8] = _number(rng, 4)[::-1]
    elif edit == 1:
        changed[start : start + 4] = data[(other := starts[rng.integers(len(starts))]) : other + 4]
    elif edit == 2:
        # Canvas, frame or bitstream: sizes stand within the first bytes.
        at = start + 8 + int(rng.integers(16))
        changed[at : at + 3] = _number(rng, 3)[::-1]
    else:
        changed[4:8] = _number(rng, 4)[::-1]
    return bytes(changed)


# What a process of its own does.


def decode_each(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Decodes one picture after the other; a process that needs too long for one ends itself."""
    outcomes: Counter[str] = Counter()
    slowest, refused = 0.0, []
    for number, picture in enumerate(pictures):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        start = time.perf_counter()
        try:
            pixels = decode(picture.encoded, exif=True)
        except DecodeError:
            refused.append(number)
            outcome = "refused"
        else:
            same = np.array_equal(pixels, decode(picture.original, exif=True))
            outcome = "as it was" if same else "changed"
        slowest = max(slowest, time.perf_counter() - start)
        outcomes[f"{picture.kind}: {outcome}"] += 1
    faulthandler.cancel_dump_traceback_later()
    return {"outcomes": dict(outcomes), "seconds_max": slowest, "refused": refused}


def run_pipeline(
    pictures: Sequence[Picture], threads: int, process_index: int, process_count: int
) -> dict[str, Any]:
    """Trains and evaluates on all pictures once."""
    source, count = Mutated(pictures), len(pictures)
    data = DataConfig(threads=threads, max_unreadable=count)
    shared: dict[str, Any] = {"data": data, "preprocessing": squashed(32), "batch_size": BATCH}
    modes: dict[str, Examples] = {
        "train": TrainExamples(order=Order(count, seed=0), **shared),
        "eval": EvalExamples(**shared),
    }
    found: dict[str, Any] = {}
    for mode, examples in modes.items():
        unreadable, logged = Unreadable(count), _Logged()
        batches = make_batches(
            source,
            examples,
            process_index=process_index,
            process_count=process_count,
            unreadable=unreadable,
        )
        threads_before = set(threading.enumerate())
        with logged:
            with contextlib.closing(batches):
                taken = list(itertools.islice(batches, count // BATCH))
            for thread in set(threading.enumerate()) - threads_before:
                thread.join()
        found[mode] = {
            "digests": [
                [_digest(batch, row) for row in range(len(batch["labels"]))] for batch in taken
            ],
            "labels": [batch["labels"][:, 0].tolist() for batch in taken],
            "unreadable": unreadable.reasons,
            "logged": logged.messages,
        }
    return found


class _Logged(logging.Handler):
    """Keeps what the pipeline logs."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._logger = logging.getLogger("effnetv2_jax.data.batches.unreadable")

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> None:
        self._logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


def _digest(batch: dict[str, np.ndarray], row: int) -> str:
    return hashlib.sha256(b"".join(batch[key][row].tobytes() for key in sorted(batch))).hexdigest()


def _peak_mib() -> float:
    """The most memory that this process has had since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _work(names: Sequence[str], count: int, seed: int, out: Path) -> None:
    pictures = mutated(count, seed)
    decode(pictures[0].original)  # What is loaded at first is not a picture's.
    found = {}
    for name in names:
        _forget_peak()
        before = _peak_mib()
        part = decode_each(pictures) if name == _ALONE else run_pipeline(pictures, *_RUNS[name])
        found[name] = part | {"peak_mib": _peak_mib() - before}
    out.write_text(json.dumps(found))


# What the caller does.


def run(count: int, seed: int) -> dict[str, Any]:
    """Runs everything and checks it.

    Args:
      count: of pictures; a multiple of `BATCH`.
      seed: of the damage.

    Returns:
      What happened, as JSON values.

    Raises:
      AssertionError: a law is broken, or a process crashed.
      subprocess.TimeoutExpired: a process hung.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = _in_processes(count, seed, Path(folder))
    decoded = runs.pop(_ALONE)
    one = runs["one thread"]
    for mode in ("train", "eval"):
        digests = one[mode]["digests"]
        assert digests == runs["four threads"][mode]["digests"]
        halves = zip(
            runs["process 0 of 2"][mode]["digests"], runs["process 1 of 2"][mode]["digests"]
        )
        assert digests == [first + second for first, second in halves]
        for found in (each[mode] for each in runs.values()):
            named = {message.split(": ")[1] for message in found["logged"]}
            assert named == set(found["unreadable"])
            assert len(found["logged"]) == len(named)
    refused = {f"picture {number}" for number in decoded["refused"]}
    _check_evaluation(one["eval"], refused)
    _check_training(one["train"], refused, count)
    bound = MAX_PIXELS * PEAK_BYTES_PER_PIXEL / 2**20
    for name, found in runs.items():
        assert found["peak_mib"] < bound * _RUNS[name][0], (name, found["peak_mib"])
    assert decoded["peak_mib"] < bound
    return {
        "count": count,
        "seed": seed,
        "outcomes": dict(sorted(decoded["outcomes"].items())),
        "refused": len(refused),
        "seconds_limit": SECONDS,
        "seconds_max": round(decoded["seconds_max"], 3),
        "peak_mib": {
            "bound of a thread": bound,
            _ALONE: round(decoded["peak_mib"]),
            **{name: round(found["peak_mib"]) for name, found in runs.items()},
        },
        "replaced": len(one["train"]["unreadable"]),
        "masked": len(one["eval"]["unreadable"]),
    }


def _check_evaluation(found: dict[str, Any], refused: set[str]) -> None:
    """What cannot be decoded is masked, and nothing else."""
    assert set(found["unreadable"]) == refused
    labels = [label for batch in found["labels"] for label in batch]
    assert labels == [-1 if f"picture {n}" in refused else n for n in range(len(labels))]


def _check_training(found: dict[str, Any], refused: set[str], count: int) -> None:
    """Nothing but what cannot be decoded is replaced; damage below a crop may not show."""
    unreadable = set(found["unreadable"])
    assert unreadable <= refused
    pictures = [Picture("", b"", b"")] * count
    keys = example_keys(Mutated(pictures), Order(count, seed=0), range(count))
    for key, label in zip(keys, (label for batch in found["labels"] for label in batch)):
        assert key == f"picture {label}" or key in unreadable


def _in_processes(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """What each run found."""
    started = []
    for number, names in enumerate(_PROCESSES):
        out = folder / f"{number}.json"
        command = [sys.executable, __file__, f"--count={count}", f"--seed={seed}", f"--out={out}"]
        command += [f"--work={name}" for name in names]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    found: dict[str, Any] = {}
    for number, process in enumerate(started):
        _, said = process.communicate(timeout=60 + count)
        assert process.returncode == 0, said[-5000:]
        found |= json.loads((folder / f"{number}.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="of pictures (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (0)")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--work", action="append", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        _work(options.work, options.count, options.seed, options.out)
        return
    from effnetv2_jax.system.machine import describe_machine

    packages = ["pillow", "simplejpeg", "numpy", "opencv-python-headless"]
    result = {
        **describe_machine(packages),
        "command": "python tests/chaos/mutated_pictures.py "
        f"--count={options.count} --seed={options.seed} --out={options.out}",
        **run(options.count, options.seed),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
