"""Slices of splits mean what they mean to TensorFlow Datasets."""

import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_jax.data import DataError
from effnetv2_jax.data.sources.splits import parse_split

NUMBERS = st.integers(-30, 30).map(str)
PERCENTAGES = st.one_of(
    st.integers(-100, 100).map("{}%".format),
    st.floats(-100, 100).map("{:.2f}%".format),
)
SLICES = st.one_of(
    *(
        st.tuples(st.just("") | bounds, st.just("") | bounds).filter(any)
        for bounds in (NUMBERS, PERCENTAGES)
    )
)


def of_tfds(text: str, count: int) -> range | None:
    """The examples that TFDS takes; None where it refuses or finds none."""
    info = tfds.core.SplitInfo(
        name="train", shard_lengths=[count], num_bytes=0, filename_template=None
    )
    try:
        (part,) = tfds.core.ReadInstruction.from_spec(text).to_absolute({"train": info})
    except ValueError:
        return None
    start, stop = part.from_ or 0, count if part.to is None else part.to
    return range(start, stop) if start < stop else None


@given(slices=SLICES, count=st.integers(1, 40) | st.just(1_281_167))
def test_the_same_examples_as_tfds(slices: tuple[str, str], count: int) -> None:
    text = f"train[{slices[0]}:{slices[1]}]"
    expected = of_tfds(text, count)
    split = parse_split(text)
    assert split.name == "train"
    assert split.is_slice
    if expected is None:
        with pytest.raises(DataError, match=r"split 'train\[.*\]' (is empty|reaches beyond)"):
            split.indices(count)
    else:
        assert split.indices(count) == expected


@pytest.mark.parametrize("name", ["train", "test_a", "tickets-train", "0"])
def test_a_name_alone_is_everything(name: str) -> None:
    split = parse_split(name)
    assert split.name == name
    assert not split.is_slice
    assert split.indices(7) == range(7)


def test_the_splits_of_the_imagenet_configs() -> None:
    count = 1_281_167
    assert len(parse_split("train[25023:]").indices(count)) == 1_256_144
    assert parse_split("train[:25021]").indices(count) == range(25_021)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train+validation",
        "train[",
        "train[:]",
        "train[5]",
        "train[::2]",
        "train[10:50%]",
        "train[0.5:]",
        "train[:101%]",
        "train[:2shard]",
        "train [1:]",
        "train[1:] ",
        "train/a",
    ],
)
def test_what_is_not_understood(text: str) -> None:
    with pytest.raises(DataError, match="is not understood; it is a name such as 'train'"):
        parse_split(text)


def test_a_part_without_examples() -> None:
    with pytest.raises(DataError, match="split 'train' is empty; 'train' has 0 examples"):
        parse_split("train").indices(0)
