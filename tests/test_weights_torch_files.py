"""PyTorch's files read without PyTorch: the same numbers, and nothing in a file runs."""

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_jax.weights import inert_pickle, torch_files
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.inert_pickle import CodeError, Inert, PickleError
from effnetv2_jax.weights.torch_files import read_torch_file

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FILES = [CHECKPOINTS / "torch_archive.pth", CHECKPOINTS / "torch_plain.pth"]
"""Written by `checkpoints/write_torch.py`."""
EXTRA = {"epoch": 3}
_random = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "view": _random.normal(size=(3, 3)).astype(np.float32),
    "turned": _random.normal(size=(2, 3)),
    "parameter": _random.normal(size=4).astype(np.float32),
    "half": _random.normal(size=4).astype(np.float16),
    "bfloat16": np.arange(4, dtype=np.float32),
    "count": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "bytes": np.arange(3, dtype=np.uint8),
    "empty": np.zeros((0, 3), np.float32),
}
DAMAGED = r"is no whole PyTorch file|there is no file"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_formats_give_what_was_saved(path: Path) -> None:
    content = read_torch_file(path)
    found = content["state_dict"]
    assert found.pop("shared").tolist() == ARRAYS["parameter"].tolist()
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        kind = ml_dtypes.bfloat16 if name == "bfloat16" else array.dtype
        np.testing.assert_array_equal(found[name], array.astype(kind), strict=True)
    assert content["epoch"] == 3
    arguments = content["args"]
    assert isinstance(arguments, Inert)
    assert arguments.name == "argparse.Namespace"
    assert arguments.state["model"] == "tf_efficientnetv2_b0"
    assert isinstance(content["best"], Inert)
    assert "torch" not in type(found["view"]).__module__


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(path: Path, share: float, tmp_path: Path) -> None:
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"cut\.pth is no whole PyTorch file"):
        read_torch_file(cut)


def archive(path: Path, content: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"data.pkl": content, **members}.items():
            file.writestr(f"x/{name}", data)
    return path


def global_call(module: str, name: str, argument: str) -> dict[str, bytes]:
    """A call of a function, in the ways that pickles have to say it."""
    text = pickle.dumps(argument, 0)[:-1]
    named = f"c{module}\n{name}\n".encode()
    new = b"\x8c" + bytes([len(module)]) + module.encode()
    new += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    return {
        "REDUCE": named + b"(" + text + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + new + b"(" + text + b"tR.",
        "INST": b"(" + text + f"i{module}\n{name}\n.".encode(),
        "OBJ": b"(" + named + text + b"o.",
        "NEWOBJ": b"\x80\x02" + named + b"(" + text + b"t\x81.",
        "NEWOBJ_EX": b"\x80\x04" + named + b"(" + text + b"t}\x92.",
    }


@pytest.mark.parametrize("kind", global_call("a", "b", "c"))
@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval")],
)
def test_code_is_refused_by_name_and_does_not_run(
    kind: str, module: str, name: str, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    payload = global_call(module, name, f"touch {left}")[kind]
    assert b"touch" in payload
    with pytest.raises(WeightsError, match=f"holds {module}.{name}, which runs programs"):
        read_torch_file(archive(tmp_path / "x.pth", payload))
    (tmp_path / "plain.pth").write_bytes(payload)
    with pytest.raises(WeightsError, match=DAMAGED + "|which runs programs"):
        read_torch_file(tmp_path / "plain.pth")
    assert not left.exists()


@pytest.mark.parametrize("kind", global_call("a", "b", "c"))
def test_what_is_not_known_is_neither_imported_nor_called(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    (tmp_path / "someones_module.py").write_text(
        f"open({str(left)!r}, 'w').close()\ndef make(*_): open({str(left)!r}, 'w').close()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    content = global_call("someones_module", "make", "x")[kind]
    found = read_torch_file(archive(tmp_path / "x.pth", content))
    assert isinstance(found, Inert)
    assert (found.name, found.arguments) == ("someones_module.make", ("x",))
    assert "someones_module" not in sys.modules
    assert not left.exists()


class Attributes:
    """That a pickle sets by BUILD."""

    def __init__(self) -> None:
        self.state_dict = {"a": 1}


def test_objects_are_their_attributes() -> None:
    for protocol in range(6):
        found = plainly(
            pickle.dumps({"x": Attributes(), "y": [1, (2.5, "b"), {3: None}]}, protocol)
        )
        assert found["x"].state == {"state_dict": {"a": 1}}
        assert found["y"] == [1, (2.5, "b"), {3: None}]


def plainly(data: bytes) -> Any:
    return inert_pickle.load(io.BytesIO(data), rebuild={}, persistent=lambda reference: None)


def doubled(count: int = 200) -> bytes:
    """A tuple of two of a tuple of two and so on, which no walk of it comes to the end of."""
    return b")" + b"2\x86" * count


@pytest.mark.parametrize(
    "data",
    [
        b"}" + doubled() + b"K\x01s.",  # As a key, which would be hashed.
        doubled() + doubled() + b"\x93.",  # As a name.
        b"(" + doubled() + b"t" + b"Q.",  # As a reference to a storage.
        doubled() + b"R.",
        b"0" * 10 + b".",
        b"\x8e" + (1 << 60).to_bytes(8, "little") + b"x.",  # Bytes that are not there.
        b"(" * 100_000 + b".",
        b"h\x05.",
        b"\x82\x01.",
    ],
    ids=range(9),
)
def test_pickles_without_end_end(data: bytes, tmp_path: Path) -> None:
    try:
        found = read_torch_file(archive(tmp_path / "x.pth", data))
    except WeightsError:
        return
    assert isinstance(found, dict | Inert)


def test_an_archive_does_not_unpack_to_more_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", b"N" * (1 << 24) + b".")
    with pytest.raises(WeightsError, match="would unpack to 16777217 bytes"):
        read_torch_file(path)


def tensor(storage: Any, offset: int, shape: Any, strides: Any) -> Any:
    return torch_files._tensor((storage, offset, shape, strides))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (1 << 40,), (0,)),
        (4, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (1,), (1, 1)),
        (0, "ab", (1, 1)),
    ],
)
def test_tensors_stay_within_their_numbers(offset: int, shape: Any, strides: Any) -> None:
    storage = torch_files._Storage("0", np.dtype(np.float32), 4)
    with pytest.raises(PickleError):
        tensor(storage, offset, shape, strides).view(np.zeros(4, np.float32))


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """A real file after a few edits."""
    data = draw(st.sampled_from([file.read_bytes() for file in FILES]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.integers(0, 8))
        data = data[:start] + draw(st.binary(max_size=8)) + data[stop:]
    return data


@st.composite
def pickles(draw: st.DrawFn) -> bytes:
    """A real pickle after a few edits, in an archive that is whole."""
    with zipfile.ZipFile(FILES[0]) as real:
        members = {name.partition("/")[2]: real.read(name) for name in real.namelist()}
    data = members.pop("data.pkl")
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(st.binary(max_size=4)) + data[start + draw(st.integers(0, 4)) :]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in {"data.pkl": data, **members}.items():
            file.writestr(f"x/{name}", content)
    return buffer.getvalue()


@settings(max_examples=300, deadline=None)
@given(content=edited() | pickles())
def test_any_bytes_are_arrays_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzzed_{os.getpid()}.pth"
    path.write_bytes(content)
    try:
        read_torch_file(path)
    except WeightsError as error:
        assert path.name in str(error)  # noqa: PT017


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=60)
    | st.lists(st.sampled_from([*map(bytes, zip(range(256)))])).map(b"".join)
)
def test_any_opcodes_are_data_or_refused(data: bytes) -> None:
    try:
        plainly(data)
    except PickleError as error:
        assert isinstance(error, CodeError) or "pickle" in str(error)  # noqa: PT017


@pytest.mark.parity
def test_torch_reads_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    for number, kind in enumerate((torch.float32, torch.float64, torch.float16)):
        layer = layer.to(kind)
        for zipped in (True, False):
            path = tmp_path / f"{number}{zipped}.pth"
            torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=zipped)
            found = read_torch_file(path)
            assert found.keys() == layer.state_dict().keys()
            for name, value in layer.state_dict().items():
                np.testing.assert_array_equal(found[name], value.numpy(), strict=True)
