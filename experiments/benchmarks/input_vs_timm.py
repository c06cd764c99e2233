"""Training images per second that the host makes of JPEG files, beside timm's loader.

    python experiments/benchmarks/input_vs_timm.py FOLDER --large

Ours is `make_batches`, to a ready uint8 batch: flip, RandAugment and normalisation are part of
the step on the device. "ours" decodes in threads, "ours_processes" in processes. timm's
`create_loader` does all of it on the host, as in its training; "timm_crops" is the same loader
without RandAugment and normalisation, to the uint8 batch, and so the work that ours does, but for
the flip. All crop as torchvision does, bilinearly (timm with antialiasing), with `--workers`
threads or processes. They take turns, each in a process of its own; start-up is not counted.

FOLDER holds photographs. Collages of their parts become the pictures: "imagenet" are 500 x 375
files of 110 KB on average; "short_160" are the same after `effnetv2_jax.data.prepare` with a short
side of 160, for 128 pixels; "large", with `--large`, are 4000 x 3000 files of 3 to 4 MB. Prints
JSON; `--output=FILE` keeps it. Needs the `parity` extra.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from timm_here import import_timm

from effnetv2_jax.data.prepare.recode import recode
from effnetv2_jax.data.sources.unlabelled import list_pictures

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "simplejpeg",
    "timm",
    "torch",
    "torchvision",
)
SIDES = ("ours", "ours_processes", "timm", "timm_crops")
SIZES = {"imagenet": (128, 192, 224, 300), "short_160": (128,), "large": (128, 300)}
BATCH = {"imagenet": 64, "short_160": 64, "large": 8}
WARM_UP = 4
SAMPLE = 10**7
"""Pixels of the pictures by which the quality is chosen."""
TILE = (250, 188)
AREA = (0.08, 1.0)

Batches = Generator[Any, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--large", action="store_true", help="large pictures as well")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--batches", type=int, default=16, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.folder, options.batches, options.workers)))
        return

    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(
            list_pictures([options.folder]), Path(folder), options.pictures, large=options.large
        )
        found: dict[str, list[Any]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side, results in found.items():
                results.append(run(side, folder, options))
    from effnetv2_jax.system.machine import describe_machine

    cases = {
        name: {
            size: compare({side: [each[name][size] for each in found[side]] for side in SIDES})
            for size in found["ours"][0][name]
        }
        for name in pictures
    }
    prepared = [each["short_160"]["128"] / each["imagenet"]["128"] for each in found["ours"]]
    result = describe_machine(PACKAGES) | {
        "command": " ".join(["python", *sys.argv]),
        "workers": options.workers,
        "pictures": pictures,
        "images_per_second": cases,
        "short_160_over_imagenet_at_128": summary(prepared),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def run(side: str, folder: str, options: argparse.Namespace) -> Any:
    command = [sys.executable, __file__, folder, f"--side={side}"]
    command += [f"--batches={options.batches}", f"--workers={options.workers}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of the sides, and the ratios within rounds."""
    ratios = {
        f"ours_over_{side}": summary([a / b for a, b in zip(rates["ours"], rates[side])])
        for side in SIDES[1:]
    }
    return {side: round(statistics.median(each), 1) for side, each in rates.items()} | ratios


def summary(ratios: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def make_pictures(
    photographs: list[str], folder: Path, count: int, *, large: bool
) -> dict[str, Any]:
    """Writes the sets of pictures below a folder, and describes them."""
    rng = np.random.default_rng(0)
    files = {"imagenet": collages(photographs, rng, (500, 375), 110_000, count)}
    files["short_160"] = [
        recode(each, short_side=160, quality=95, check=False, exif=True)
        for each in files["imagenet"]
    ]
    if large:
        files["large"] = collages(photographs, rng, (4000, 3000), 3_500_000, 24)
    for name, encoded in files.items():
        for index, each in enumerate(encoded):
            path = folder / name / "train" / f"class_{index % 2}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(each)
    return {
        name: {"count": len(each), "mean_kb": round(sum(map(len, each)) / len(each) / 1000, 1)}
        for name, each in files.items()
    }


def collages(
    photographs: list[str],
    rng: np.random.Generator,
    size: tuple[int, int],
    mean_bytes: int,
    count: int,
) -> list[bytes]:
    """JPEG files with 4:2:0 chroma, of the quality at which they come nearest to a mean size."""
    sampled = max(1, min(count, SAMPLE // (size[0] * size[1])))
    sample = [collage(photographs, rng, size) for _ in range(sampled)]

    def distance(quality: int) -> float:
        return abs(sum(len(save(each, quality)) for each in sample) / len(sample) - mean_bytes)

    quality = min(range(75, 101), key=distance)
    return [save(collage(photographs, rng, size), quality) for _ in range(count)]


def collage(photographs: list[str], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A picture of tiles, each a part of a photograph at its own scale."""
    width, height = TILE
    picture = Image.new("RGB", size)
    for left, top in itertools.product(range(0, size[0], width), range(0, size[1], height)):
        with Image.open(photographs[rng.integers(len(photographs))]) as file:
            photograph = file.convert("RGB")
        scale = max(1.0, width / photograph.width, height / photograph.height)
        if scale > 1:
            wanted = [max(a, round(scale * b)) for a, b in zip(TILE, photograph.size)]
            photograph = photograph.resize((wanted[0], wanted[1]), Image.Resampling.BICUBIC)
        x = int(rng.integers(photograph.width - width + 1))
        y = int(rng.integers(photograph.height - height + 1))
        picture.paste(photograph.crop((x, y, x + width, y + height)), (left, top))
    return picture


def save(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def measure(side: str, folder: Path, count: int, workers: int) -> dict[str, dict[int, float]]:
    """Images per second of a side by set of pictures and image size."""
    rates: dict[str, dict[int, float]] = {}
    for name in filter(lambda name: (folder / name).exists(), SIZES):
        rates[name] = {}
        for size in SIZES[name]:
            arguments = folder / name, size, BATCH[name], workers
            if side.startswith("ours"):
                batches = ours(*arguments, processes=workers if side == "ours_processes" else 0)
            else:
                batches = timms(*arguments, augment=side == "timm")
            with contextlib.closing(batches):
                for _ in range(WARM_UP):
                    next(batches)
                start = time.perf_counter()
                for _ in range(count):
                    next(batches)
                rates[name][size] = count * BATCH[name] / (time.perf_counter() - start)
    return rates


def ours(folder: Path, size: int, batch: int, workers: int, *, processes: int) -> Batches:
    from effnetv2_jax.config.experiment import DataConfig
    from effnetv2_jax.data import Order, TrainExamples, make_batches, make_workers, open_source
    from effnetv2_jax.preprocessing import squashed

    data = DataConfig(
        source="folder",
        path=str(folder),
        validation_share=0.0,
        crop="torchvision",
        crop_area=AREA,
        threads=workers,
        processes=processes,
    )
    source = open_source(data, "train")
    examples = TrainExamples(
        order=Order(len(source), seed=0),
        data=data,
        preprocessing=squashed(size),
        batch_size=batch,
    )
    with make_workers(data) as started:
        yield from make_batches(source, examples, workers=started)


def timms(folder: Path, size: int, batch: int, workers: int, *, augment: bool) -> Batches:
    timm, torch = import_tolerant_timm()
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(folder), split="train", is_training=True),
        input_size=(3, size, size),
        batch_size=batch,
        is_training=True,
        scale=AREA,
        interpolation="bilinear",
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1" if augment else None,
        num_workers=workers,
        use_multi_epochs_loader=True,
        use_prefetcher=not augment,
        device=torch.device("cpu"),
    )
    # The prefetcher only moves uint8 batches to the device and normalises them there.
    yield from itertools.chain.from_iterable(itertools.repeat(loader if augment else loader.loader))


def import_tolerant_timm() -> Any:
    # timm's policy may keep 0 bits, which is black, and which Pillow 13 refuses.
    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: (
        posterize(image, bits) if bits else Image.new(image.mode, image.size)
    )
    return import_timm()


if __name__ == "__main__":
    main()
