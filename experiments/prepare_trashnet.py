"""Makes the embedded data set from TrashNet.

    python experiments/prepare_trashnet.py trashnet.zip

The archive holds `<class>/<picture>.jpg`, as `data/dataset-resized.zip` of
https://github.com/garythung/trashnet does (MIT licence, Gary Thung and Mindy Yang); folders above
the classes do no harm. The same archive and library versions give the same examples in the same
order, though not the same bytes: the order of the fields within an example is left to protobuf.
"""

import argparse
import hashlib
import io
import pathlib
import random
import shutil
import zipfile
from collections import defaultdict
from typing import NamedTuple

import tensorflow_datasets as tfds
from PIL import Image

EMBEDDED = pathlib.Path(__file__).parents[1] / "effnetv2_jax/data/embedded"
VERSION = "1.0.0"
SHORT_SIDE = 128
QUALITY = 81
TEST_SHARE = 0.2
SEED = 0


class Picture(NamedTuple):
    """A picture as the archive names it: `<class>/<file>`."""

    file_name: str
    encoded: bytes

    @property
    def label(self) -> str:
        return self.file_name.split("/")[0]


def read(archive: pathlib.Path) -> list[Picture]:
    """All pictures of the archive, sorted by name."""
    with zipfile.ZipFile(archive) as files:
        return sorted(
            Picture("/".join(path.parts[-2:]), files.read(str(path)))
            for path in map(pathlib.PurePosixPath, files.namelist())
            if path.suffix.lower() == ".jpg" and "__MACOSX" not in path.parts
        )


def without_duplicates(pictures: list[Picture]) -> list[Picture]:
    """Keeps one of identical pictures, and none where they carry different labels."""
    copies: dict[bytes, list[Picture]] = defaultdict(list)
    for picture in pictures:
        pixels = Image.open(io.BytesIO(picture.encoded)).convert("RGB").tobytes()
        copies[hashlib.sha256(pixels).digest()].append(picture)
    for same in copies.values():
        if len(same) > 1:
            print("identical:", ", ".join(picture.file_name for picture in same))
    return [same[0] for same in copies.values() if len({picture.label for picture in same}) == 1]


def split(pictures: list[Picture]) -> dict[str, list[Picture]]:
    """Holds out `TEST_SHARE` of every class; each split in random order."""
    rng = random.Random(SEED)
    splits: dict[str, list[Picture]] = {"train": [], "test": []}
    for label in sorted({picture.label for picture in pictures}):
        members = [picture for picture in pictures if picture.label == label]
        rng.shuffle(members)
        count = round(TEST_SHARE * len(members))
        splits["test"] += members[:count]
        splits["train"] += members[count:]
    for members in splits.values():
        # Any slice of a split then holds all classes.
        rng.shuffle(members)
    return splits


def shrink(encoded: bytes) -> bytes:
    """Scales the short side to `SHORT_SIDE`, antialiased, and compresses again."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    factor = SHORT_SIDE / min(image.size)
    width, height = (round(factor * side) for side in image.size)
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=QUALITY, optimize=True
    )
    return buffer.getvalue()


def write(splits: dict[str, list[Picture]], folder: pathlib.Path) -> None:
    """Writes the splits as a TFDS set of ArrayRecord files."""
    labels = sorted({picture.label for members in splits.values() for picture in members})
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name="trashnet",
            version=tfds.core.utils.Version(VERSION),
            data_dir=str(folder),
            module_name="",
        ),
        description="TrashNet: photographs of waste in 6 classes, short side 128 pixels.",
        homepage="https://github.com/garythung/trashnet",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=labels),
                "file_name": tfds.features.Text(),
            }
        ),
        supervised_keys=("image", "label"),
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=10_000, file_format="array_record"
    )
    writer.initialize_splits(list(splits))
    for name, members in splits.items():
        for picture in members:
            example = {
                "image": shrink(picture.encoded),
                "label": picture.label,
                "file_name": picture.file_name,
            }
            writer.add_examples({name: [example]})
    writer.close_all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=EMBEDDED)
    arguments = parser.parse_args()

    splits = split(without_duplicates(read(arguments.archive)))
    folder = arguments.output / "trashnet" / VERSION
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(splits, folder)

    labels = sorted({picture.label for picture in splits["train"]})
    for label in labels:
        counts = [sum(p.label == label for p in members) for members in splits.values()]
        print(f"{label}: {counts[0]} train, {counts[1]} test")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(splits['train'])} train, {len(splits['test'])} test, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
