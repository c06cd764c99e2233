"""Anything at all where pictures, TFRecord files, configs and command lines are expected."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tiny
from chaos.mutated_pictures import originals
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from effnetv2_jax.cli.command_line import CommandError, parse
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.data import DataError, DecodeError
from effnetv2_jax.data.pictures.box import Box
from effnetv2_jax.data.pictures.decode import decode, open_picture
from effnetv2_jax.data.sources.tfrecord import TfrecordSource
from effnetv2_jax.data.sources.tfrecord_index import FOOTER, HEADER
from effnetv2_jax.outputs.workdir import WorkdirError
from effnetv2_jax.system.checksums import masked_crc32c

REAL = [data for files in originals().values() for data in files[::3]]
SIGNATURES = [b"", *sorted({data[:30] for data in REAL}), b"GIF89a", b"BM", b"P6 9 9 255\n"]

# Decoding.


@st.composite
def edited(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A real file after a few edits: bytes put in place of others."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        # Headers are small and matter most.
        start = draw(st.integers(0, 80) | st.integers(0, len(data)))
        stop = start + draw(st.integers(0, 8) | st.integers(0, len(data)))
        data = data[:start] + draw(st.binary(max_size=12)) + data[stop:]
    return data


anything = edited(REAL) | st.builds(lambda a, b: a + b, st.sampled_from(SIGNATURES), st.binary())
shares = st.tuples(*[st.floats(0, 1)] * 4)


def part_of(edges: tuple[float, ...], height: int, width: int) -> Box:
    top, bottom = sorted(round(edge * (height - 1)) for edge in edges[:2])
    left, right = sorted(round(edge * (width - 1)) for edge in edges[2:])
    return Box(top, left, bottom - top + 1, right - left + 1)


# Whether Pillow warns of damage must not matter; as errors, its warnings would refuse it.
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None)
@given(data=anything, exif=st.booleans(), edges=shares)
def test_any_bytes_are_a_picture_or_refused(
    data: bytes, exif: bool, edges: tuple[float, ...]
) -> None:
    whole = picture = part = None
    with contextlib.suppress(DecodeError):
        whole = decode(data, exif=exif)
    with contextlib.suppress(DecodeError):
        picture = open_picture(data, exif=exif)
        box = part_of(edges, picture.height, picture.width)
        part = picture.part(box)
    if whole is not None:
        assert whole.dtype == np.uint8
        assert whole.ndim == 3
        assert whole.shape[2] == 3
        assert min(whole.shape) > 0
        # What can be read can be read in parts.
        assert picture is not None
        assert (picture.height, picture.width) == whole.shape[:2]
        assert part is not None
    if part is not None:
        assert part.dtype == np.uint8
        assert part.shape == (box.height, box.width, 3)


# TFRecord files.


def _record(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    header = HEADER.pack(len(data), masked_crc32c(length))
    return header + data + FOOTER.pack(masked_crc32c(data))


def _example(value: int) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    buffer = io.BytesIO()
    Image.new("L", (2, 2), value).save(buffer, "PNG")
    example = tf_example_pb2.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(buffer.getvalue())
    example.features.feature["image/class/label"].int64_list.value.append(value % 2)
    return example.SerializeToString(deterministic=True)


EXAMPLES = [_example(value) for value in range(3)]
RECORDS = b"".join(map(_record, EXAMPLES))
framed = st.lists(edited(EXAMPLES), max_size=3).map(lambda parts: b"".join(map(_record, parts)))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@settings(max_examples=300, deadline=None)
@given(content=st.binary() | edited([RECORDS]) | framed)
def test_any_bytes_are_tfrecords_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    root.mkdir(exist_ok=True)
    (root / "train-00000-of-00001").write_bytes(content)
    with contextlib.suppress(DataError):
        source = TfrecordSource(str(root), "train", num_classes=2)
        for index in range(len(source)):
            with contextlib.suppress(DecodeError, DataError):
                record = source[index]
                assert isinstance(record.encoded, bytes)
                assert all(isinstance(label, int) for label in record.labels)


# Configs.

BASE = dataclasses.asdict(tiny.experiment())
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=3)
    | st.sampled_from(["none", "same", "adamw", "folder", 0, 1, -1, 64, float("nan"), float("inf")])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every field stands, groups and entries included."""
    inner: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else []
    inner = enumerate(node) if isinstance(node, tuple | list) else inner
    return [path, *(found for key, each in inner for found in paths(each, (*path, key)))]


def put(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with a value in place of what stands at a path."""
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


PATHS = paths(BASE)


@settings(max_examples=600, deadline=None)
@example(changes=[((), {0: None})])
@example(changes=[(("epochs",), 10**400)])
@example(changes=[(("epochs",), float("inf"))])
@example(changes=[(("data", "mean"), [float("nan")] * 3)])
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=2))
def test_any_config_is_an_experiment_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    config: Any = BASE
    for path, value in changes:
        with contextlib.suppress(LookupError, TypeError, ValueError):
            config = put(config, path, value)
    with contextlib.suppress(ConfigError):
        experiment = from_config_dict(config)
        assert experiment.plan(1000).total_steps >= 0
        assert from_config_dict(dataclasses.asdict(experiment)) == experiment


def named(path: tuple[Any, ...]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return f"--config{text}"


flags = st.sampled_from([named(path) for path in PATHS if path]) | st.text(max_size=6).map(
    lambda text: f"--config.{text}"
)
texts = (
    st.text(max_size=8)
    | scalars.map(str)
    | values.map(repr)
    | st.sampled_from(["None", "True", "(1,", "(0.1,1.0)", "1e999", "[]", "{}", "nan", "-", "="])
)


@settings(max_examples=300, deadline=None)
@given(
    overrides=st.lists(st.tuples(flags, texts), min_size=1, max_size=2),
    others=st.lists(
        st.text(max_size=6)
        | st.tuples(st.sampled_from(["--mode", "--workdir", "--topology", "--x"]), texts).map(
            "=".join
        ),
        max_size=1,
    ),
)
@example(overrides=[("--config.stages[0]", "None")], others=[])
@example(
    overrides=[("--config.stages", "'x'"), ("--config.stages[0].image_size", "None")], others=[]
)
def test_any_command_line_is_understood_or_refused(
    overrides: list[tuple[str, str]], others: list[str]
) -> None:
    arguments = [f"{flag}={text}" for flag, text in overrides]
    with contextlib.suppress(CommandError, ConfigError, WorkdirError):
        parse(["program", "--config=quickstart.py", "--mode=plan", *arguments, *others])
