"""Classifying pictures from the command line and from Python."""

import csv
import functools
import http.server
import importlib.util
import io
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps
from random_weights import random_variables, thin

from effnetv2_jax import WeightsError, preprocess, save_pretrained
from effnetv2_jax.data import DecodeError
from effnetv2_jax.data.sources.unlabelled import FilesSource, list_pictures
from effnetv2_jax.predict import main, predict
from effnetv2_jax.preprocessing import cropped, squashed
from effnetv2_jax.weights import pretrained

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = ("tin", "a box, of card", "glass", "paper", "plastic", "trash", "Größe")
MODEL = thin(class_names=NAMES, preprocessing=cropped(48))
VARIABLES = random_variables(MODEL)
PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The program sets it for the rest of its process, which here is that of other tests."""
    logger = logging.getLogger("effnetv2_jax.data")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"--weights={save_pretrained(tmp_path_factory.mktemp('weights'), MODEL, VARIABLES)}"


def expected(path: Path) -> np.ndarray:
    logits = np.asarray(MODEL.apply(VARIABLES, preprocess(path, like=MODEL)))[0]
    return np.exp(logits) / np.exp(logits).sum()


def test_json_has_every_picture_in_order(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    single = PICTURES / "metal.jpg"
    # Batches of two for five pictures: the last is padded.
    options = [weights, "--format=json", "--top=3", "--batch_size=2"]
    assert main([*options, str(PICTURES), str(single)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    paths = [*sorted(PICTURES.glob("*.jpg")), single]
    assert [line["path"] for line in lines] == list(map(str, paths))
    for line, path in zip(lines, paths, strict=True):
        probabilities = expected(path)
        best = (-probabilities).argsort()[:3]
        assert [guess["label"] for guess in line["predictions"]] == best.tolist()
        assert [guess["name"] for guess in line["predictions"]] == [NAMES[i] for i in best]
        found = [guess["probability"] for guess in line["predictions"]]
        np.testing.assert_allclose(found, probabilities[best], rtol=1e-3)


def test_csv_and_table(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([weights, "--format=csv", str(PICTURES)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 4 * 5
    assert [row["rank"] for row in rows[:5]] == list("12345")
    assert {row["name"] for row in rows} <= set(NAMES)
    assert main([weights, "--top=100", str(PICTURES)]) == 0
    table = capsys.readouterr().out
    assert table.count(".jpg\n") == 4
    assert table.count("%  a box, of card\n") == 4


def test_a_shard_goes_on_where_it_was_stopped(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "2.jsonl"
    options = [weights, "--format=json", "--top=3", f"--output={file}"]
    assert main([*options, "--shard=2/2", str(PICTURES)]) == 0
    whole = file.read_text()
    paths = [json.loads(line)["path"] for line in whole.splitlines()]
    assert paths == list(map(str, sorted(PICTURES.glob("*.jpg"))[1::2]))
    file.write_text(whole[: whole.index("\n") + 20])
    assert main([*options, "--shard=2/2", str(PICTURES)]) == 0
    assert file.read_text() == whole
    assert main([*options, "--shard=1/2", str(PICTURES)]) == 2
    assert main([weights, f"--output={file}", str(PICTURES)]) == 2
    assert file.read_text() == whole
    printed = capsys.readouterr()
    assert "goes on with other pictures from line 1 on" in printed.err
    assert "--output needs --format=json" in printed.err
    assert printed.out == ""


def test_all_classes_above_a_threshold(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = PICTURES / "glass.jpg"
    logits = np.asarray(MODEL.apply(VARIABLES, preprocess(picture, like=MODEL)))[0]
    own = 1 / (1 + np.exp(-logits))
    threshold = float(np.sort(own)[-3:-1].mean())  # Below the second, above the third.
    assert main([weights, "--format=json", f"--threshold={threshold}", str(picture)]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [guess["label"] for guess in line["predictions"]] == (-own).argsort()[:2].tolist()
    found = [guess["probability"] for guess in line["predictions"]]
    np.testing.assert_allclose(found, np.sort(own)[:-3:-1], rtol=1e-3)
    assert main([weights, "--threshold=1", str(picture)]) == 0
    assert "no class with a probability of 1 or more" in capsys.readouterr().out
    assert main([weights, "--threshold=1", "--format=csv", str(picture)]) == 0
    assert f"{picture},,,,," in capsys.readouterr().out


def test_pictures_that_cannot_be_read_are_told_and_the_others_classified(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PICTURES / "glass.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "ignored.txt").write_text("")
    Image.new("L", (50, 40), 7).save(tmp_path / "c.PNG")
    (tmp_path / "d.jpg").symlink_to(tmp_path / "nowhere")
    assert main([weights, "--format=json", str(tmp_path)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a.jpg", "b.jpg", "c.PNG", "d.jpg"]
    assert lines[1]["error"] == "it is no picture in a known format"
    assert lines[1]["predictions"] == []
    assert "No such file" in lines[3]["error"]
    assert len(lines[0]["predictions"]) == len(lines[2]["predictions"]) == 5


@pytest.mark.parametrize(
    ("arguments", "complaint", "status"),
    [
        (["--weights=nowhere", str(PICTURES)], "there are no weights 'nowhere'", 1),
        (["--weights=in1k", str(PICTURES)], "name the model as well", 1),
        (["--weights=nowhere", "none.jpg"], "there is no file or folder 'none.jpg'", 1),
        (["--weights=nowhere", str(Path(__file__).parent.parent / "configs")], "no picture", 1),
        (["--weights=nowhere", "--model=b0", str(PICTURES)], "--model: unknown model 'b0'", 2),
        (
            ["--weights=nowhere", "--import=nothing_here", str(PICTURES)],
            "--import=nothing_here: No",
            2,
        ),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], complaint: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert complaint in printed.err
    assert printed.out == ""


def test_preprocess_takes_pictures_of_any_kind() -> None:
    path = PICTURES / "glass.jpg"
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
        kinds: list[Any] = [str(path), path, path.read_bytes(), picture]
        batch = preprocess(kinds, like=MODEL)
    assert batch.shape == (4, 48, 48, 3)
    assert batch.dtype == np.float32
    # Decoders may differ by a grey level.
    assert np.abs(batch - batch[0]).max() < 3 / 57
    one = preprocess(pixels, like=MODEL.preprocessing)
    np.testing.assert_array_equal(one, batch[3:])
    np.testing.assert_array_equal(preprocess(pixels[None], like=MODEL), one)
    flat = np.full((2, 30, 40, 3), 192, np.uint8)
    np.testing.assert_array_equal(preprocess(flat, like=squashed(32)), 0.5)
    assert preprocess([], like=MODEL).shape == (0, 48, 48, 3)


def test_transparent_and_deep_pictures_are_the_same_from_files_and_from_pillow(
    tmp_path: Path,
) -> None:
    transparent = Image.new("RGBA", (40, 40), (10, 200, 30, 0))
    deep = Image.fromarray(np.full((40, 40), 40_000, np.uint16))
    for picture in (transparent, deep):
        picture.save(tmp_path / "picture.png")
        from_file = preprocess(tmp_path / "picture.png", like=squashed(32))
        np.testing.assert_array_equal(preprocess(picture, like=squashed(32)), from_file)


def test_without_pictures_or_classes() -> None:
    assert list(predict(MODEL, VARIABLES, [])) == []
    with pytest.raises(ValueError, match="no classifier"):
        next(predict(MODEL.clone(num_classes=0), VARIABLES, ["a.jpg"]))


def test_preprocess_takes_grey_and_arrays_of_jax_and_torch() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    colour = np.stack([grey] * 3, axis=2)
    expected = preprocess(colour, like=MODEL)
    alike: list[Any] = [grey, grey[:, :, None], jnp.asarray(grey), jnp.asarray(colour)]
    alike += [Image.fromarray(grey)]
    if importlib.util.find_spec("torch"):
        import torch

        alike += [torch.from_numpy(grey), torch.from_numpy(colour)]
        alike += [torch.from_numpy(grey)[None], torch.from_numpy(colour).permute(2, 0, 1)]
    for picture in alike:
        np.testing.assert_array_equal(preprocess(picture, like=MODEL), expected)
    assert preprocess(alike, like=MODEL).shape == (len(alike), 48, 48, 3)
    several = jnp.asarray(np.stack([colour] * 2))
    np.testing.assert_array_equal(preprocess(several, like=MODEL), np.concatenate([expected] * 2))


def test_pillows_images_are_turned_as_their_files_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for orientation in range(1, 9):
        tag = Image.Exif()
        tag[274] = orientation
        Image.fromarray(pixels).save(path := tmp_path / "x.png", exif=tag)
        with Image.open(path) as picture:
            for exif in (True, False):
                np.testing.assert_array_equal(
                    preprocess(picture, like=squashed(32), exif=exif),
                    preprocess(path, like=squashed(32), exif=exif),
                )
            upright = ImageOps.exif_transpose(picture)
            np.testing.assert_array_equal(
                preprocess(upright, like=squashed(32)), preprocess(path, like=squashed(32))
            )


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server of the folder with the tests' pictures."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(PICTURES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_urls_are_pictures_too(address: str) -> None:
    local, url, nothing = PICTURES / "glass.jpg", f"{address}/glass.jpg", f"{address}/nothing.jpg"
    source = FilesSource(list_pictures([url, str(local), nothing]))
    assert source.paths == (url, str(local), nothing)
    assert source[0].encoded == source[1].encoded
    with pytest.raises(OSError, match="cannot be downloaded: HTTP Error 404") as error:
        source[2]
    assert error.value.filename == nothing
    np.testing.assert_array_equal(preprocess(url, like=MODEL), preprocess(local, like=MODEL))
    with pytest.raises(DecodeError, match=f"^{address}/: it is no picture"):
        preprocess(f"{address}/", like=MODEL)


def test_how_weights_compute_can_be_stated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*arguments: Any, **fields: Any) -> Any:
        raise WeightsError(str(fields))

    monkeypatch.setattr(pretrained, "load_pretrained", load)
    arguments = ["--weights=x", str(PICTURES / "glass.jpg")]
    assert main(arguments) == 1
    assert "{'dtype': 'float32'}" in capsys.readouterr().err
    assert main([*arguments, "--padding=symmetric", "--bn_epsilon=1e-5"]) == 1
    stated = "{'dtype': 'float32', 'padding': 'symmetric', 'bn_epsilon': 1e-05}"
    assert stated in capsys.readouterr().err


def test_preprocess_says_what_it_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"picture 1 must be .* not float64 \[2, 2, 3\]"):
        preprocess([np.zeros((2, 2, 3), kind) for kind in (np.uint8, float)], like=MODEL)
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"x.jpg: it is no picture"):
        preprocess(tmp_path / "x.jpg", like=MODEL)
    with pytest.raises(TypeError, match="like must be a model"):
        preprocess(np.zeros((2, 2, 3), np.uint8), like="efficientnetv2-s")
