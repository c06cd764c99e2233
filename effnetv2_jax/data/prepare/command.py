"""Turns pictures in folders, tables, or files of other kinds into a TFDS set of ArrayRecord files.

    python -m effnetv2_jax.data.prepare --from=PICTURES --to=DIR --name=mine --short-side=384
    python -m effnetv2_jax.data.prepare --from=TFRECORDS --format=tfrecord --num-classes=1000 \\
        --first-label=1 --to=DIR --name=imagenet2012
    python -m effnetv2_jax.data.prepare --from=BIRDS.csv --format=csv --field=label_key=species \\
        --to=DIR --name=birds

--config.data.source=tfds --config.data.path=DIR --config.data.name=NAME reads it, and so does TFDS.
Examples stand in a random order, so that every slice of a split is a random sample. Pictures keep
their bytes, except for those that --short-side shrinks, and those in folders that their EXIF data
turn: these are turned and compressed anew, because readers of TFDS sets do not turn them.

Whenever it is interrupted, the same command goes on, with the same result. Pictures that cannot be
decoded are named and left out.
"""

import argparse
import dataclasses
import difflib
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.prepare.array_record_set import SHARD_BYTES, Recipe, prepare, verify
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.data.report import describe_data
from effnetv2_jax.data.sources.folder import FolderSource
from effnetv2_jax.data.sources.open import list_source
from effnetv2_jax.data.sources.picture_folder import PictureFolder
from effnetv2_jax.data.sources.splits import parse_split
from effnetv2_jax.data.sources.tfrecord import TfrecordSource
from effnetv2_jax.system.paths import local_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 1 unless the set is whole."""
    options = _parse(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return _verify(options) if options.verify else _prepare(options)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _prepare(options: argparse.Namespace) -> int:
    if options.format == "tfrecord":
        root = options.source.rstrip("/")
        splits = _named(options.splits or "train,validation")
        sources: dict[str, Source] = {
            name: TfrecordSource(
                root,
                split,
                num_classes=options.num_classes,
                first_label=options.first_label,
                max_labels=options.max_labels,
            )
            for name, split in splits.items()
        }
    elif options.format != "folder":
        root = str(pathlib.Path(options.source).expanduser())
        sources = _listed_sources(options, root)
        root = root if pathlib.Path(root).is_dir() else str(pathlib.Path(root).parent)
    else:
        root = str(pathlib.Path(options.source).expanduser())
        sources = _folder_sources(PictureFolder(root, layout=options.layout), options.splits)
    recipe = Recipe(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)}
    )
    print("\n".join(describe_data(sources)), file=sys.stderr)
    with logging_redirect_tqdm():
        info = prepare(
            sources,
            options.to,
            options.name,
            recipe,
            version=options.version,
            root=f"{root}/",
            threads=options.threads,
            max_unreadable=options.max_unreadable,
        )
    for name, source in sources.items():
        count = info.splits[name].num_examples
        print(f"{name}: {count:,} pictures, {len(source) - count} left out")
    print(f"in {info.data_dir}")
    return 0


def _folder_sources(folder: PictureFolder, splits: str | None) -> dict[str, Source]:
    """The splits of a folder, all with the classes of the first, which is train by default."""
    named = _named(splits or ("train,validation" if folder.has_validation else "train"))
    sources: dict[str, Source] = {}
    class_names = None
    for name, split in named.items():
        # Nothing is held out: a part of train can be, as a slice.
        source = FolderSource(folder, split, validation_share=0, class_names=class_names)
        class_names = source.class_names
        sources[name] = source
    return sources


def _listed_sources(options: argparse.Namespace, path: str) -> dict[str, Source]:
    """The splits of a source whose examples are listed, all with the classes of the first."""
    data = DataConfig(
        source=options.format,
        path=path,
        # Nothing is held out: a part of train can be, as a slice.
        validation_share=0.0,
        max_labels=options.max_labels,
        num_classes=options.num_classes,
        first_label=options.first_label,
        **_fields(options.fields),
    )
    take = list_source(data)
    sources: dict[str, Source] = {}
    class_names = None
    for name, split in _named(options.splits or "train,validation").items():
        try:
            source = take(split, class_names)
        except DataError:
            if options.splits or not sources:
                raise
            continue  # There may be no validation.
        class_names = source.class_names
        sources[name] = source
    return sources


def _fields(stated: Sequence[str]) -> dict[str, Any]:
    """Fields of a `DataConfig`, of `NAME=VALUE`."""
    known = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    found: dict[str, Any] = {}
    for text in stated:
        name, _, value = text.partition("=")
        if not isinstance(known.get(name), str | tuple) or name in ("source", "path"):
            texts = [key for key, default in known.items() if isinstance(default, str)]
            close = difflib.get_close_matches(name, texts, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DataError(f"--field={text}: there is no such field of a source{hint}")
        found[name] = tuple(value.split(",")) if isinstance(known[name], tuple) else value
    return found


def _named(splits: str) -> dict[str, str]:
    """The split to read for each that is made: `validation=val[:50%],train`."""
    named: dict[str, str] = {}
    for part in splits.split(","):
        name, _, split = part.rpartition("=")
        read = parse_split(split).name
        name = name or ("validation" if read in ("val", "valid") else read)
        if name in named:
            raise DataError(f"--splits has {name!r} twice; name one otherwise: other={split}")
        named[name] = split
    return named


def _verify(options: argparse.Namespace) -> int:
    folder = pathlib.Path(options.to).expanduser() / options.name / options.version
    wrong = verify(folder)
    for name in wrong:
        print(f"{folder / name} is missing or damaged", file=sys.stderr)
    if not wrong:
        print(f"{folder} is as it was made")
    return int(bool(wrong))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m effnetv2_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--from", dest="source", metavar="PATH", help="the folder or file to read")
    formats = ["folder", "tfrecord", "csv", "huggingface", "webdataset"]
    add("--format", choices=formats, default="folder", help="what it has (folder)")
    fields = "a field of config.data that says how it is read, such as label_key=species; repeated"
    add("--field", dest="fields", action="append", default=[], metavar="NAME=VALUE", help=fields)
    add("--to", required=True, metavar="DIR", help="the data directory, where sets lie")
    add("--name", required=True, help="of the set")
    add("--version", default="1.0.0", help="of the set (1.0.0)")
    splits = "parts to make, such as train=train[5%%:],minival=train[:5%%] (train,validation)"
    add("--splits", metavar="NAME=SPLIT,...", help=splits)
    layout = "classes: the outer folders are classes, whatever they are called (auto)"
    add("--layout", choices=["auto", "classes"], default="auto", help=layout)
    classes = "which TFRecord files do not state; else of labels that are numbers"
    add("--num-classes", type=_positive, metavar="N", help=classes)
    add("--first-label", type=int, default=0, metavar="N", help="number of the first class (0)")
    labels = "that a picture may have (1)"
    add("--max-labels", type=_positive, default=1, metavar="N", help=labels)
    side = "shrink the short side of larger pictures to this"
    add("--short-side", type=_positive, metavar="PIXELS", help=side)
    quality = "of the JPEG files of changed pictures, 1 to 100 (95)"
    add("--quality", type=_positive, default=95, metavar="N", help=quality)
    pixels = f"leave out larger pictures, but for JPEG that --short-side shrinks ({MAX_PIXELS:,})"
    add("--max-pixels", type=_positive, default=MAX_PIXELS, metavar="N", help=pixels)
    shards = f"files of each split (one for every {SHARD_BYTES >> 20} MiB)"
    add("--shards", type=_positive, metavar="N", help=shards)
    add("--threads", type=_positive, metavar="N", help="that work (one per CPU core)")
    add("--seed", type=int, default=0, metavar="N", help="of the random order (0)")
    unreadable = "pictures that may be left out; one more ends the work (100)"
    add("--max-unreadable", type=int, default=100, metavar="N", help=unreadable)
    check = "do not try to decode every picture"
    add("--no-check", dest="check", action="store_false", help=check)
    add("--verify", action="store_true", help="compare a finished set with its checksums instead")
    options = parser.parse_args(arguments)
    options.to, options.source = (
        place and local_path(place) for place in (options.to, options.source)
    )
    if options.source is None and not options.verify:
        parser.error("--from is missing")
    if options.format == "tfrecord" and options.num_classes is None:
        parser.error("--format=tfrecord needs --num-classes")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number
