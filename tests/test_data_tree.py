"""How folders are listed: once, with what is passed over."""

import os
import pathlib
from collections import Counter
from typing import Any

import pytest
from PIL import Image

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError
from effnetv2_jax.data.pictures import formats
from effnetv2_jax.data.sources import folder_tree
from effnetv2_jax.data.sources.folder_tree import describe, list_tree
from effnetv2_jax.data.sources.open import open_sources
from effnetv2_jax.data.sources.unlabelled import list_pictures


def touch(root: pathlib.Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def paths(root: pathlib.Path) -> list[str]:
    return [
        f"{path}/{name}" for path, inner in list_tree(str(root)).walk() for name in inner.pictures
    ]


def counted_scandir(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each folder is listed."""
    counts: Counter[str] = Counter()
    original = os.scandir

    def scandir(path: Any = ".") -> Any:
        counts[os.path.realpath(path)] += 1
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return counts


def test_every_folder_is_listed_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        for label in "abc":
            touch(tmp_path, *(f"{split}/{label}/{deep}/1.jpg" for deep in ("x", "y/z")))
    folders = {str(tmp_path), *(str(path) for path in tmp_path.rglob("*") if path.is_dir())}
    counts = counted_scandir(monkeypatch)
    train, evaluation = open_sources(
        DataConfig(source="folder", path=str(tmp_path), eval_split="val")
    )
    assert (len(train), len(evaluation)) == (6, 6)
    assert {path: counts[path] for path in counts if path in folders} == dict.fromkeys(folders, 1)


def test_what_systems_leave_behind_is_passed_over(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.PNG", "b/deep/3.webp")
    folders = "@eaDir lost+found $RECYCLE.BIN .ipynb_checkpoints .thumbnails __MACOSX .Trash-1000"
    for name in [*folders.split(), "System Volume Information"]:
        touch(tmp_path, f"{name}/4.jpg", f"a/{name}/5.jpg")
    touch(tmp_path, "a/.DS_Store", "a/Thumbs.db", "a/._1.jpg", "b/desktop.ini")
    tree = list_tree(str(tmp_path))
    assert paths(tmp_path) == ["a/1.jpg", "b/2.PNG", "b/deep/3.webp"]
    assert tree.all_passed_over() == {"hidden": 2 * 8 + 4}
    assert list_pictures([str(tmp_path)]) == [f"{tmp_path}/{name}" for name in paths(tmp_path)]


def test_other_files_are_counted_by_what_they_are(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder_tree, "_PICTURE_ENDINGS", frozenset(formats.ENDINGS) - {".heic"})
    monkeypatch.setattr(folder_tree, "how_to_read", {".heic": "pip install pillow-heif"}.get)
    touch(tmp_path, "a/1.jpg", "a/x.jpg.txt", "a/y.txt", "a/cat.zip", "a/README", "a/z.HEIC")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    (tmp_path / "a/broken").symlink_to(tmp_path / "nowhere")
    found = list_tree(str(tmp_path)).all_passed_over()
    assert found == {
        ".txt": 2,
        ".zip": 1,
        ".heic": 1,
        "without an ending": 1,
        "broken links": 1,
        "neither files nor folders": 1,
    }
    assert describe(found).startswith("2 .txt, ")
    assert "1 .heic (to read them: pip install pillow-heif)" in describe(found)
    assert list_pictures([str(tmp_path)]) == [f"{tmp_path}/a/1.jpg"]
    assert "passed over: 2 .txt, " in capsys.readouterr().err
    (tmp_path / "a/1.jpg").unlink()
    with pytest.raises(DataError, match=r"no picture \(.*\) in .*, but 2 \.txt"):
        list_pictures([str(tmp_path)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_pictures_without_an_ending_are_known_by_how_they_begin(
    tmp_path: pathlib.Path, kind: str
) -> None:
    (tmp_path / "a").mkdir()
    for mode in ("RGB", "L"):
        Image.new(mode, (8, 8)).save(tmp_path / "a" / mode, kind)
    touch(tmp_path, "a/BMW", "a/Makefile", content=b"BMW: cars of all kinds")
    assert paths(tmp_path) == ["a/L", "a/RGB"]


def test_a_broken_link_to_a_picture_stays_in_the_list(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a/2.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "a/3.jpg").symlink_to(tmp_path / "a/3.jpg")
    assert paths(tmp_path) == ["a/1.jpg", "a/2.jpg", "a/3.jpg"]


def test_links_to_folders_are_followed_once(tmp_path: pathlib.Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    touch(data, "a/1.jpg", "b/2.jpg", "b/deep/3.jpg")
    touch(outside, "4.jpg", "inner/5.jpg")
    (data / "a/disk").symlink_to(outside)
    (data / "b/deep/disk").symlink_to(outside)  # Again.
    (data / "a/b").symlink_to(data / "b")  # Pictures of another class.
    (data / "b/up").symlink_to(data)
    (data / "b/self").symlink_to(data / "b")
    (outside / "round").symlink_to(outside)
    assert paths(data) == [
        "a/1.jpg",
        "a/disk/4.jpg",
        "a/disk/inner/5.jpg",
        "b/2.jpg",
        "b/deep/3.jpg",
    ]
    repeated = list_tree(str(data)).all_passed_over()
    assert repeated == {"links to folders that are listed already": 5}


def test_links_in_circles_end(tmp_path: pathlib.Path) -> None:
    rooms = [tmp_path / f"outside/{number}" for number in range(6)]
    for room in rooms:
        touch(room, "1.jpg")
    for room in rooms:
        for other in rooms:
            (room / f"to{other.name}").symlink_to(other)
    touch(tmp_path, "data/a/0.jpg")
    (tmp_path / "data/a/disk").symlink_to(tmp_path / "outside")
    assert len(paths(tmp_path / "data")) == 7


def test_a_long_listing_shows_its_progress(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    list_tree(str(tmp_path))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(folder_tree, "REPORT_SECONDS", 0.0)
    list_tree(str(tmp_path))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"listing {tmp_path}: 5 entries in 3 folders so far"


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg")

    def scandir(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=rf"{tmp_path} cannot be listed: Permission denied"):
        list_tree(str(tmp_path))
