"""TensorFlow's checkpoints, whole and damaged; `checkpoints/write.py` has TensorFlow write them.

Those of whole networks are read in `test_parity_tf1.py`.
"""

import contextlib
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnetv2_jax.models.efficientnet.names import TF1
from effnetv2_jax.weights import tf1_checkpoint
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.tf1_checkpoint import (
    FOOTER,
    MAGIC,
    TRAILER,
    read_tf1_checkpoint,
    weights_of_checkpoint,
)

OUTERMOST = TF1.outermost
read = functools.partial(read_tf1_checkpoint, outermost=OUTERMOST)

FOLDER = Path(__file__).parent / "checkpoints"
INDEX = FOLDER / "named.index"

MODEL = "efficientnetv2-s"
RAW: dict[str, np.ndarray] = {
    "stem/conv2d/kernel": np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2) / 8,
    "stem/tpu_batch_normalization/moving_mean": np.array([0.5, -3], np.float32),
    "blocks_0/conv2d/kernel": np.full((1, 1, 2, 3), 0.1, np.float64),
    "blocks_0/se/conv2d/bias": np.array([1, -2, 65504], np.float16),
    "blocks_10/se/conv2d_1/bias": np.array([1.5, -0.25], ml_dtypes.bfloat16),
    "blocks_10/depthwise_conv2d/counts": np.array([[-1, 2**31 - 1]], np.int32),
    "head/dense/bias": np.array([], np.float32),
    "head/scale": np.array(2**40, np.int64),
}
AVERAGES = {
    "stem/conv2d/kernel": -RAW["stem/conv2d/kernel"],
    "stem/tpu_batch_normalization/moving_mean": np.array([1, 2], np.float32),
}
WEIGHTS = RAW | AVERAGES


def assert_same(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], strict=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    for file in FOLDER.glob("named.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["named", "named.index"])
def test_arrays_are_those_that_tensorflow_wrote(path: str) -> None:
    assert_same(read(FOLDER / path), WEIGHTS)


def test_arrays_may_be_written_to() -> None:
    for array in read(str(INDEX)).values():
        array.fill(0)


def test_a_folder_has_one_checkpoint_or_says_which(folder: Path) -> None:
    assert_same(read(folder), WEIGHTS)
    shutil.copy(INDEX, folder / "other.index")
    with pytest.raises(WeightsError, match="several checkpoints, name one of them: named, other"):
        read(folder)
    state = folder / "checkpoint"
    state.write_text('model_checkpoint_path: "/of/another/machine/named"\nall_model_checkpoint_')
    assert_same(read(folder), WEIGHTS)
    state.write_text('model_checkpoint_path: "gone"\n')
    with pytest.raises(WeightsError, match="several checkpoints"):
        read(folder)


def test_a_shard_without_weights_is_not_read(folder: Path) -> None:
    (folder / "named.data-00000-of-00003").unlink()
    assert_same(read(folder), WEIGHTS)


def test_weights_are_averages_without_slots_under_names_within_the_network() -> None:
    kernel = "efficientnet-b0/model/blocks_3/conv2d/kernel"
    names = [
        kernel,
        f"{kernel}/RMSProp",
        f"{kernel}/RMSProp_1",
        f"{kernel}/Momentum",
        f"{kernel}/Adam",
        f"{kernel}/Adam_1",
        f"{kernel}/ExponentialMovingAverage",
        "efficientnet-b0/head/dense/bias",
        "stem/conv2d/kernel",
        "elsewhere",
        "global_step",
        "beta1_power",
        "train/beta2_power",
    ]
    assert weights_of_checkpoint({name: name for name in names}, outermost=OUTERMOST) == {
        "blocks_3/conv2d/kernel": f"{kernel}/ExponentialMovingAverage",
        "head/dense/bias": "efficientnet-b0/head/dense/bias",
        "stem/conv2d/kernel": "stem/conv2d/kernel",
        "elsewhere": "elsewhere",
    }


def test_two_models_in_one_checkpoint() -> None:
    with pytest.raises(WeightsError, match="several models with a variable stem/conv2d/kernel"):
        weights_of_checkpoint(
            {"a/stem/conv2d/kernel": 0, "b/stem/conv2d/kernel": 0}, outermost=OUTERMOST
        )


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("none", r"there is no .*none\.index; a checkpoint is given by"),
        ("named.index/none", r"there is no .*none\.index"),
        ("objects", r"objects\.index is an object-based checkpoint of TensorFlow 2.*save"),
        ("sliced", r"head/dense/kernel is partitioned"),
        ("../pictures", r"pictures holds no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_of_ours(path: str, fault: str) -> None:
    with pytest.raises(WeightsError, match=fault):
        read(FOLDER / path)


def varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block_of(entries: dict[bytes, bytes], compression: int = 0) -> bytes:
    """A block with its checksum."""
    block = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries.items()
    )
    block += bytes(4) + b"\1\0\0\0" + bytes([compression])
    return block + masked(block).to_bytes(4, "little")


def index_of(entries: dict[bytes, bytes], compression: int = 0) -> bytes:
    """An index that is sound but for what its entries may be."""
    block = block_of(entries, compression)
    top = block_of({b"~": varint(0) + varint(len(block) - TRAILER)})
    footer = varint(0) + varint(0) + varint(len(block)) + varint(len(top) - TRAILER)
    return block + top + footer.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC


def field(key: int, value: int | bytes) -> bytes:
    """A protocol buffer's."""
    if isinstance(value, int):
        return varint(key << 3) + varint(value)
    return varint(key << 3 | 2) + varint(len(value)) + value


def entry(shape: tuple[int, ...] = (1,), crc: int | None = None, **numbers: int) -> bytes:
    """Of a float32 0, where nothing else is said."""
    crc = masked(bytes(4)) if crc is None else crc
    numbers = {"dtype": 1, "size": 4} | numbers
    keys = {"dtype": 1, "shard": 3, "offset": 4, "size": 5}
    message = b"".join(field(keys[name], number) for name, number in numbers.items())
    message += field(2, b"".join(field(2, field(1, length)) for length in shape))
    return message + b"\x35" + crc.to_bytes(4, "little")


def read_index(folder: Path, index: bytes) -> dict[str, np.ndarray]:
    (folder / "x.index").write_bytes(index)
    (folder / "x.data-00000-of-00001").write_bytes(bytes(4))
    return read(folder / "x")


def test_an_index_made_by_hand(tmp_path: Path) -> None:
    arrays = read_index(tmp_path, index_of({b"": field(1, 1), b"a": entry()}))
    assert_same(arrays, {"a": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("header", "message", "fault"),
    [
        (field(2, 1), entry(), r"x\.index .* big-endian"),
        (field(1, b""), entry(), r"x\.index .* entries are damaged"),
        (field(1, 1), entry()[:-1], r"x\.index .* entries are cut off"),
        (field(1, 1), field(2, 1), r"x\.index .* entries are damaged"),
        (field(1, 1), b"\x0b", r"x\.index .* entries are damaged"),
        (field(1, 1), b"\x08" + b"\xff" * 11, r"x\.index .* numbers are damaged"),
        (field(1, 1), entry(dtype=7), "a has TensorFlow's dtype number 7"),
        (field(1, 1), entry(size=8), r"a has 8 bytes, not those of float32 \(1,\)"),
        (field(1, 1), entry(shape=(2**63, 2)), "a has 4 bytes, not those of float32"),
        (field(1, 1), entry(shape=(2**63, 0), size=0, crc=masked(b"")), "impossible shape"),
        (field(1, 1), entry(shape=(1,) * 70), "impossible shape"),
        (field(1, 1), entry(offset=1), r"x\.data-00000-of-00001 is cut off"),
        (field(1, 1), entry(offset=2**63), r"x\.data-00000-of-00001 is cut off"),
        (field(1, 1), entry(crc=0), r"x\.data-00000-of-00001 is damaged"),
        (field(1, 1), entry(shard=1), r"lacks .*x\.data-00001-of-00001, where a lies"),
    ],
)
def test_entries_that_cannot_be_read(
    tmp_path: Path, header: bytes, message: bytes, fault: str
) -> None:
    with pytest.raises(WeightsError, match=fault):
        read_index(tmp_path, index_of({b"": header, b"a": message}))


def test_other_tables(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lacks the header"):
        read_index(tmp_path, index_of({b"a": entry()}))
    with pytest.raises(WeightsError, match="it is compressed, which is not read"):
        read_index(tmp_path, index_of({b"": field(1, 1)}, compression=1))
    with pytest.raises(WeightsError, match="several models"):
        read_index(tmp_path, index_of({b"": b"", b"a/head/b": entry(), b"c/head/b": entry()}))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: b"", "cut off or something else"),
        (lambda data: data[:-1], "cut off or something else"),
        (lambda data: data[-40:], "cut off or something else"),
        (lambda data: b"PK\3\4" * 99, "cut off or something else"),
        (lambda data: data[-48:], "it is cut off"),
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "a checksum shows"),
    ],
)
def test_a_damaged_index_is_named(
    folder: Path, damage: Callable[[bytes], bytes], fault: str
) -> None:
    index = folder / "named.index"
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(WeightsError, match=rf"named\.index is not a sound index: .*{fault}"):
        read(folder)


def test_a_damaged_shard_is_named(folder: Path) -> None:
    shard = folder / "named.data-00001-of-00003"
    data = shard.read_bytes()
    shard.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    with pytest.raises(
        WeightsError, match=f"{shard.name} is damaged, as the checksum of blocks_0/"
    ):
        read(folder)
    shard.write_bytes(data[:30])
    with pytest.raises(WeightsError, match=f"{shard.name} is cut off before the end of blocks_0/"):
        read(folder)
    shard.unlink()
    with pytest.raises(WeightsError, match=rf"lacks .*{shard.name}, where blocks_0/.*get it"):
        read(folder)


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, INDEX.stat().st_size),
        st.integers(0, 8),  # Bytes to take away there
        st.binary(max_size=8),  # and to put in.
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("checked", [True, False], ids=["checksums", "no_checksums"])
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=MUTATIONS)
def test_no_mutation_of_an_index_does_worse_than_a_weights_error(
    folder: Path, checked: bool, mutations: list[tuple[int, int, bytes]]
) -> None:
    data = INDEX.read_bytes()
    for position, taken, put in mutations:
        data = data[:position] + put + data[position + taken :]
    (folder / INDEX.name).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        if not checked:
            patch.setattr(tf1_checkpoint, "_sound", lambda data, masked: True)
        with contextlib.suppress(WeightsError):
            arrays = read(folder)
            assert not checked or arrays.keys() == WEIGHTS.keys()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=12), message=st.binary(max_size=40))
def test_no_entry_does_worse_than_a_weights_error(
    tmp_path: Path, header: bytes, message: bytes
) -> None:
    with contextlib.suppress(WeightsError):
        read_index(tmp_path, index_of({b"": header, b"a": message}))
