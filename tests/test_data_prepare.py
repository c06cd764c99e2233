"""Sets prepared from folders and TFRecord files, whatever interrupts the work."""

import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import ExifTags, Image
from test_data_tfrecord import example, imagenet, picture, write

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, Source, open_source
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.prepare.array_record_set import CHECKSUMS, MANIFEST, Recipe, prepare, verify
from effnetv2_jax.data.prepare.command import main
from effnetv2_jax.data.sources.folder import FolderSource


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpeg(number: int, size: tuple[int, int] = (12, 8), orientation: int | None = None) -> bytes:
    """A picture that is darker at the left; every number gives another."""
    ramp = np.linspace(number % 50, 200 + number // 50 % 50, size[0])
    pixels = np.broadcast_to(ramp[None, :, None], (size[1], size[0], 3))
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def make(root: pathlib.Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def tree(root: pathlib.Path, part: str = "", count: int = 30) -> dict[str, bytes]:
    """Pictures of two classes, by path."""
    files = {f"{part}{'ab'[index % 2]}/{index:03}.jpg": jpeg(index) for index in range(count)}
    make(root, files)
    return files


def run(tmp_path: pathlib.Path, *options: str, name: str = "toy") -> int:
    """Prepares `tmp_path/from` in `tmp_path/to`."""
    arguments = (f"--from={tmp_path / 'from'}", f"--to={tmp_path / 'to'}", f"--name={name}")
    return main([*arguments, *options])


def opened(tmp_path: pathlib.Path, split: str = "train", name: str = "toy") -> Source:
    return open_source(
        DataConfig(source="tfds", name=name, path=str(tmp_path / "to"), train_split=split), "train"
    )


def contents(source: Source) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Pictures and labels by file name."""
    records = [source[index] for index in range(len(source))]
    return {
        record.key.split("(", 1)[1].removesuffix(")"): (record.encoded, record.labels)
        for record in records
    }


def sums(tmp_path: pathlib.Path, name: str = "toy") -> str:
    return (tmp_path / "to" / name / "1.0.0" / CHECKSUMS).read_text()


def test_a_folder_keeps_its_bytes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tree(tmp_path / "from", "train/")
    held_out = tree(tmp_path / "from", "val/", count=4)
    assert run(tmp_path) == 0
    source, validation = opened(tmp_path), opened(tmp_path, "validation")
    assert source.class_names == ("a", "b")
    expected = {name: (content, ("ab".index(name[6]),)) for name, content in files.items()}
    assert contents(source) == expected
    assert contents(validation).keys() == held_out.keys()
    assert capsys.readouterr().out.splitlines() == [
        "train: 30 pictures, 0 left out",
        "validation: 4 pictures, 0 left out",
        f"in {tmp_path / 'to/toy/1.0.0'}",
    ]


def test_tfds_reads_it_too(tmp_path: pathlib.Path) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path, "--shards=4") == 0
    builder = tfds.builder_from_directory(tmp_path / "to/toy/1.0.0")
    assert builder.info.splits["train"].shard_lengths == [7, 8, 7, 8]
    examples = builder.as_data_source("train")
    assert len(examples) == 30
    assert examples[0]["image"].shape == (8, 12, 3)
    assert "ab"[examples[0]["label"]].encode() == examples[0]["file_name"][:1]


def test_tfrecord_files_keep_their_bytes(tmp_path: pathlib.Path) -> None:
    for shard in range(2):
        records = [imagenet(value) for value in range(5 * shard, 5 * shard + 5)]
        write(tmp_path / f"from/train-{shard:05}-of-00002", records)
    options = ("--format=tfrecord", "--splits=train", "--num-classes=5", "--first-label=1")
    assert run(tmp_path, *options) == 0
    found = contents(opened(tmp_path))
    assert sorted(found.values()) == [(picture(value), (value % 5,)) for value in range(10)]
    assert "train-00000-of-00002 at byte 0 (n00000000.JPEG)" in found


def test_several_labels(tmp_path: pathlib.Path) -> None:
    labels = [[0, 2], [1], [], [2, 1, 0]]
    records = [example(image=picture(value), labels=each) for value, each in enumerate(labels)]
    write(tmp_path / "from/train.tfrecord", records)
    options = ("--format=tfrecord", "--splits=train", "--num-classes=3")
    assert run(tmp_path, *options, "--max-labels=3") == 0
    found = contents(opened(tmp_path)).values()
    assert sorted(found) == [(picture(value), tuple(each)) for value, each in enumerate(labels)]


@pytest.mark.parametrize("labels", [[0, 1], [], [3], [-1]])
def test_labels_that_do_not_fit(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], labels: list[int]
) -> None:
    write(tmp_path / "from/train.tfrecord", [example(image=picture(0), labels=labels)])
    assert run(tmp_path, "--format=tfrecord", "--splits=train", "--num-classes=3") == 1
    assert "train.tfrecord at byte 0 has " in capsys.readouterr().err


def test_the_order_is_random_and_the_seeds(tmp_path: pathlib.Path) -> None:
    files = tree(tmp_path / "from")
    for seed in (0, 1):
        assert run(tmp_path, f"--seed={seed}", name=f"toy{seed}") == 0
    orders = [list(contents(opened(tmp_path, name=f"toy{seed}"))) for seed in (0, 1)]
    assert orders[0] != orders[1] != sorted(files) != orders[0]


def test_threads_do_not_enter(tmp_path: pathlib.Path) -> None:
    tree(tmp_path / "from")
    source = FolderSource(str(tmp_path / "from"), "train", validation_share=0)
    for threads in (1, 7):
        info = prepare(
            {"train": source}, tmp_path / f"to{threads}", "toy", Recipe(), threads=threads
        )
        assert info.splits["train"].num_examples == 30
    sums = [(tmp_path / f"to{threads}/toy/1.0.0" / CHECKSUMS).read_text() for threads in (1, 7)]
    assert sums[0] == sums[1]


def test_large_pictures_are_shrunk_and_small_ones_left(tmp_path: pathlib.Path) -> None:
    files = {"a/large.jpg": jpeg(0, (90, 60)), "a/small.jpg": jpeg(1, (40, 30)), "b/c.jpg": jpeg(2)}
    make(tmp_path / "from", files)
    assert run(tmp_path, "--short-side=30") == 0
    found = contents(opened(tmp_path))
    assert found["a/small.jpg"][0] == files["a/small.jpg"]
    assert found["b/c.jpg"][0] == files["b/c.jpg"]
    shrunk = decode(found["a/large.jpg"][0])
    assert shrunk.shape == (30, 45, 3)
    expected = Image.open(io.BytesIO(files["a/large.jpg"])).resize(
        (45, 30), Image.Resampling.LANCZOS
    )
    np.testing.assert_allclose(shrunk, np.asarray(expected), atol=8)


@pytest.mark.parametrize("options", [(), ("--no-check",), ("--short-side=10",)])
def test_turned_pictures_are_turned(tmp_path: pathlib.Path, options: tuple[str, ...]) -> None:
    files = {
        "a/1.jpg": jpeg(0, orientation=6),
        "a/2.jpg": jpeg(0, orientation=1),
        "b/3.jpg": jpeg(0),
    }
    make(tmp_path / "from", files)
    assert run(tmp_path, *options) == 0
    found = contents(opened(tmp_path))
    turned = decode(found["a/1.jpg"][0])
    assert turned.shape == (12, 8, 3)
    np.testing.assert_allclose(turned, decode(files["a/1.jpg"], exif=True), atol=8)
    assert [found[name][0] for name in ("a/2.jpg", "b/3.jpg")] == [
        files["a/2.jpg"],
        files["b/3.jpg"],
    ]


def test_broken_pictures_are_named_and_left_out(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = tree(tmp_path / "from")
    broken = {"a/x.jpg": b"no picture", "b/y.jpg": jpeg(0)[:200]}
    make(tmp_path / "from", broken)
    assert run(tmp_path, "--max-unreadable=1") == 1
    assert "too many pictures cannot be read" in capsys.readouterr().err
    assert run(tmp_path, "--max-unreadable=2") == 0
    assert contents(opened(tmp_path)).keys() == files.keys()
    assert "train: 30 pictures, 2 left out" in capsys.readouterr().out
    for name in broken:
        assert f"left out {tmp_path / 'from' / name}: it " in caplog.text
    manifest = json.loads((tmp_path / "to/toy/1.0.0" / MANIFEST).read_text())
    (shard,) = manifest["files"].values()
    assert shard["unreadable"].keys() == {str(tmp_path / "from" / name) for name in broken}
    assert run(tmp_path, "--no-check", name="unchecked") == 0
    assert contents(opened(tmp_path, name="unchecked")).keys() == files.keys() | broken.keys()


def test_a_file_without_any_readable_picture(tmp_path: pathlib.Path) -> None:
    make(tmp_path / "from", {"a/1.jpg": b"no", "a/2.jpg": b"no", "b/3.jpg": jpeg(3)})
    assert run(tmp_path, "--shards=3") == 0
    assert list(contents(opened(tmp_path))) == ["b/3.jpg"]


# Interruption.

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # A script's background job ignores it.
from effnetv2_jax.data.prepare.command import main
status = main(sys.argv[1:])
assert "tensorflow" not in sys.modules
sys.exit(status)
"""


def started(tmp_path: pathlib.Path) -> subprocess.Popen[str]:
    arguments = (f"--from={tmp_path / 'from'}", f"--to={tmp_path / 'to'}", "--name=toy")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, "--shards=20", "--short-side=64"],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_goes_on_where_it_was_interrupted(tmp_path: pathlib.Path, how: signal.Signals) -> None:
    make(
        tmp_path / "from",
        {f"{'ab'[index % 2]}/{index}.jpg": jpeg(index, (400, 300)) for index in range(600)},
    )
    folder = tmp_path / "to/toy/1.0.0"
    process = started(tmp_path)
    while process.poll() is None and len([*folder.glob("toy-*")]) < 2:
        time.sleep(0.001)
    time.sleep(random.random() / 10)
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode == (-how if how == signal.SIGKILL else 130), errors
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("toy-*")}
    assert 2 <= len(finished) < 20
    with pytest.raises(DataError, match="holds no finished set"):
        verify(folder)
    with pytest.raises(DataError, match="no data set"):
        opened(tmp_path)

    process = started(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    kept = sum((folder / name).stat().st_mtime_ns == when for name, when in finished.items())
    # The last may have got its name, but not yet its place in the manifest.
    assert kept >= len(finished) - 1
    interrupted_sums = sums(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [line.split()[1] for line in interrupted_sums.splitlines()] + [CHECKSUMS, MANIFEST]
    )
    shutil.rmtree(folder)
    assert run(tmp_path, "--shards=20", "--short-side=64") == 0
    assert sums(tmp_path) == interrupted_sums


def test_missing_and_shortened_files_are_made_again(tmp_path: pathlib.Path) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path, "--shards=3") == 0
    before, (first, second, _) = sums(tmp_path), sorted((tmp_path / "to").rglob("toy-*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    assert run(tmp_path, "--shards=3") == 0
    assert sums(tmp_path) == before
    assert verify(first.parent) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed=1",), "seed was 0 and is 1"),
        (("--short-side=100",), "short_side was None and is 100"),
        (("--shards=2",), "split train was '30 pictures in 1 files, .*' and is '30 .* in 2 files"),
        (("--splits=train=train[:50%]",), "split train was '30 pictures .* and is '15 pictures"),
        (("--splits=other=train",), "split other was None .*split train was .* and is None"),
    ],
)
def test_other_arguments_are_refused(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path) == 0
    before = sums(tmp_path)
    assert run(tmp_path, *options) == 1
    pattern = f"error: .*toy/1.0.0 was begun otherwise: .*{message}.*choose another --to"
    assert re.search(pattern, capsys.readouterr().err)
    assert sums(tmp_path) == before


def test_another_source_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path) == 0
    (tmp_path / "from").rename(tmp_path / "moved")
    (tmp_path / "from").symlink_to(tmp_path / "moved")
    assert run(tmp_path) == 0
    (tmp_path / "from/a/000.jpg").rename(tmp_path / "from/a/other.jpg")
    assert run(tmp_path) == 1
    assert "was begun otherwise: split train was '30 pictures" in capsys.readouterr().err


def test_a_set_from_elsewhere_is_not_touched(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "from")
    make(tmp_path, {"to/toy/1.0.0/dataset_info.json": b"{}"})
    assert run(tmp_path) == 1
    assert "holds something that was not made here" in capsys.readouterr().err


def test_verification(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path, "--shards=3") == 0
    folder = tmp_path / "to/toy/1.0.0"
    assert run(tmp_path, "--verify") == 0
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--strict", CHECKSUMS], cwd=folder, check=True)
    shards = sorted(folder.glob("toy-*"))
    content = bytearray(shards[1].read_bytes())
    content[len(content) // 2] ^= 1
    shards[1].write_bytes(content)
    shards[2].unlink()
    capsys.readouterr()
    assert run(tmp_path, "--verify") == 1
    assert capsys.readouterr().err == (
        f"{shards[1]} is missing or damaged\n{shards[2]} is missing or damaged\n"
    )


# The command line.


def test_parts_of_splits(tmp_path: pathlib.Path) -> None:
    files = tree(tmp_path / "from", "train/")
    tree(tmp_path / "from", "val/", count=4)
    assert run(tmp_path, "--splits=train=train[20%:],minival=train[:20%],val") == 0
    parts = [contents(opened(tmp_path, split)) for split in ("train", "minival", "validation")]
    assert [len(part) for part in parts] == [24, 6, 4]
    assert parts[0].keys() | parts[1].keys() == files.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--splits=train,train[:5]",), "--splits has 'train' twice"),
        (("--splits=nonsense",), "no split 'nonsense'"),
        (("--splits=train,validation",), "has no validation folder"),
        (("--splits=a-b=train",), "split 'a-b' must consist of letters"),
        (("--version=1",), "version '1' must be like 1.0.0"),
        (("--name=a/b",), "name 'a/b' must consist of letters"),
        (("--from=/nowhere",), "there is no folder '/nowhere'"),
        (("--to=gs://bucket",), "--to=gs://bucket: a set is made in a local directory"),
    ],
)
def test_what_cannot_be_done(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    tree(tmp_path / "from")
    assert run(tmp_path, *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to=x", "--name=y"], "--from is missing"),
        (["--from=x", "--format=tfrecord", "--to=x", "--name=y"], "needs --num-classes"),
        (["--from=x", "--to=x", "--name=y", "--shards=0"], "0 is not above 0"),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


def test_class_names_that_tfds_does_not_take(tmp_path: pathlib.Path) -> None:
    class Doubled(FolderSource):
        class_names: Any = ("a", "a")

        def __init__(self) -> None:
            pass

    with pytest.raises(DataError, match="TFDS does not take the names"):
        prepare({"train": Doubled()}, tmp_path, "toy", Recipe())


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline", b"cat ", b" cat", b"a\rb"])
def test_names_of_classes_that_cannot_be_kept_are_refused_first(
    tmp_path: pathlib.Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "from", {f"{label}/1.jpg": jpeg(1) for label in ("cat", os.fsdecode(name))})
    assert run(tmp_path) == 1
    assert f"which these are not: {os.fsdecode(name)!a}. Rename" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_classes_keep_their_order_and_form(tmp_path: pathlib.Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    make(tmp_path / "from", {f"train/{label}/1.jpg": jpeg(1) for label in ("b", composed)})
    make(tmp_path / "from", {f"val/{decomposed}/2.jpg": jpeg(2)})
    assert run(tmp_path) == 0
    assert opened(tmp_path).class_names == ("b", composed)
    assert opened(tmp_path, "validation")[0].labels == (1,)
    make(tmp_path / "from/numbers", {f"{label}/1.jpg": jpeg(1) for label in ("10", "9")})
    assert main([f"--from={tmp_path / 'from/numbers'}", f"--to={tmp_path / 'to'}", "--name=n"]) == 0
    assert opened(tmp_path, name="n").class_names == ("9", "10")


def test_splits_and_classes_that_have_to_be_stated(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("one", "two"):
        make(tmp_path / "from", {f"{part}/{label}/1.jpg": jpeg(1) for label in "ab"})
    assert run(tmp_path) == 1
    assert "hold folders of the same names" in capsys.readouterr().err
    assert run(tmp_path, "--splits=train=one,validation=two") == 0
    assert "validation: 2 of 2 pictures" in capsys.readouterr().err
    assert opened(tmp_path).class_names == ("a", "b")
    assert run(tmp_path, "--layout=classes", name="outer") == 0
    assert opened(tmp_path, name="outer").class_names == ("one", "two")


def test_from_tables(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tree(tmp_path / "from")
    rows = [f"{name},{'a' if 'a/' in name else 'b;a'}" for name in files]
    (tmp_path / "from/t.csv").write_text("\n".join(["name,tags", *rows]))
    arguments = [f"--from={tmp_path / 'from/t.csv'}", "--format=csv", f"--to={tmp_path}"]
    arguments += ["--name=made", "--field=label_key=tags", "--field=picture_key=name"]
    arguments += ["--field=label_separator=;", "--max-labels=2"]
    assert main(arguments) == 0, capsys.readouterr().err
    made = open_source(
        DataConfig(source="tfds", path=str(tmp_path), name="made", max_labels=2), "train"
    )
    assert (len(made), made.class_names) == (30, ("a", "b"))
    found = {made[n].encoded: made[n].labels for n in range(30)}
    for name, content in files.items():
        assert found[content] == ((0,) if "a/" in name else (1, 0))
    assert main([*arguments, "--field=label_kee=x"]) == 1
    assert "there is no such field of a source; did you mean label_key?" in capsys.readouterr().err
