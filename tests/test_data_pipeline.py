"""The order of a run, whatever reads it; exact evaluation; unreadable pictures."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import (
    DataError,
    EvalExamples,
    HostBatch,
    Order,
    Record,
    Source,
    TrainExamples,
    Unreadable,
    example_keys,
    make_batches,
    open_source,
)
from effnetv2_jax.data.batches.reader import Reader
from effnetv2_jax.data.pictures.box import Box
from effnetv2_jax.data.pictures.crops import Law, random_box, resize
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.preprocessing import Preprocessing, cropped, squashed

Batches = Generator[HostBatch, None, None]
Salts = Sequence[tuple[int, int]]

DATA = DataConfig(threads=2)
TRAIN = open_source(DATA, "train")
EVAL = open_source(DataConfig(eval_split="test[:30]"), "eval")


class Numbered:
    """Pictures of one colour each: example i has label i, and i as its brightness."""

    name = "numbered"
    exif = False
    fingerprint = "numbered"

    def __init__(self, count: int, unreadable: Collection[int] = ()) -> None:
        self._count = count
        self._unreadable = unreadable
        self.class_names = tuple(map(str, range(count)))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        if index in self._unreadable:
            return Record(f"picture {index}", b"no picture", (index,))
        # A bitmap's header and 4 pixels, since tests read thousands of them.
        return Record(f"picture {index}", _bitmap(index), (index,))


def _bitmap(value: int) -> bytes:
    header = b"P6 2 2 255\n"
    return header + bytes([value % 256]) * 12


def opened(
    source: Source,
    data: DataConfig = DATA,
    *,
    image_size: int = 32,
    batch_size: int = 16,
    first_example: int = 0,
    seed: int = 0,
    salts: Salts = (),
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Batches:
    """Training batches."""
    examples = TrainExamples(
        order=Order(len(source), seed, tuple(salts)),
        data=data,
        preprocessing=preprocessing or squashed(image_size),
        batch_size=batch_size,
        first_example=first_example,
    )
    return make_batches(source, examples, **options)


def evaluated(
    source: Source,
    data: DataConfig = DATA,
    *,
    batch_size: int = 8,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Batches:
    """Evaluation batches."""
    examples = EvalExamples(
        data=data, preprocessing=preprocessing or squashed(32), batch_size=batch_size
    )
    return make_batches(source, examples, **options)


def take(source: Source, count: int, data: DataConfig = DATA, **options: Any) -> HostBatch:
    with contextlib.closing(opened(source, data, **options)) as batches:
        taken = list(itertools.islice(batches, count))
    return {key: np.concatenate([batch[key] for batch in taken]) for key in taken[0]}


def labels(source: Source, count: int, **options: Any) -> list[int]:
    return take(source, count, **options)["labels"][:, 0].tolist()


def same(first: HostBatch, second: HostBatch) -> None:
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_shapes_and_types() -> None:
    batch = take(TRAIN, 1, image_size=40)
    assert batch["image"].shape == (16, 40, 40, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["labels"].shape == (16, 1)
    assert batch["labels"].dtype == np.int32


def test_any_batch_can_be_started_at() -> None:
    whole = take(TRAIN, 6)
    for k in (1, 5):
        part = take(TRAIN, 1, first_example=16 * k)
        same(part, {key: value[16 * k : 16 * k + 16] for key, value in whole.items()})


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_a_batch_out(process_count: int) -> None:
    batches = [
        opened(TRAIN, first_example=48, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for whole in (take(TRAIN, 1, first_example=48), take(TRAIN, 1, first_example=64)):
        parts = [next(batch) for batch in batches]
        assert len(parts[0]["labels"]) == 16 // process_count
        same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})
    for batch in batches:
        batch.close()


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (5, 2), (16, 8)])
def test_threads_and_prefetching_change_nothing(threads: int, prefetch: int) -> None:
    data = dataclasses.replace(DATA, threads=threads, prefetch_batches=prefetch)
    same(take(TRAIN, 4), take(TRAIN, 4, data=data))


def test_another_batch_size_or_stage_continues_the_same_order() -> None:
    whole = take(TRAIN, 4)
    same(whole, take(TRAIN, 2, batch_size=32))
    first = take(TRAIN, 2)
    second = take(TRAIN, 1, first_example=32, batch_size=32, image_size=48)
    np.testing.assert_array_equal(
        whole["labels"], np.concatenate([first["labels"], second["labels"]])
    )


def test_a_crop_belongs_to_its_position_not_to_the_image_size() -> None:
    # Resizing keeps the mean colour of a crop, and other crops have another.
    small, large = take(TRAIN, 2, image_size=32), take(TRAIN, 2, image_size=64)
    means = [batch["image"].mean(axis=(1, 2)) for batch in (small, large)]
    np.testing.assert_allclose(means[0], means[1], atol=12)
    other_crops = take(TRAIN, 2, seed=1)["image"].mean(axis=(1, 2))
    assert abs(means[0] - other_crops).mean() > 12


def test_the_same_picture_is_cropped_anew_in_every_epoch() -> None:
    source = open_source(DataConfig(train_split="train[:1]"), "train")
    images = take(source, 1)["image"]
    assert len({image.tobytes() for image in images}) == 16


@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 10**6),
)
@settings(max_examples=25, deadline=None)
def test_every_epoch_has_every_example_once(count: int, seed: int, epoch: int) -> None:
    found = labels(Numbered(count), 1, batch_size=count, first_example=epoch * count, seed=seed)
    assert sorted(found) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    source = Numbered(50)
    epochs = [
        tuple(labels(source, 1, batch_size=50, first_example=50 * epoch, seed=seed))
        for epoch, seed in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2**33)]
    ]
    assert len(set(epochs)) == len(epochs)
    assert tuple(range(50)) not in epochs


SALTS = [(21, 0), (70, 3)]


def test_salts_change_order_and_crops_from_their_positions_on() -> None:
    plain, salted = take(TRAIN, 6), take(TRAIN, 6, salts=SALTS)
    first = take(TRAIN, 6, salts=SALTS[:1])
    same(*({key: value[:21] for key, value in batch.items()} for batch in (plain, salted)))
    same(*({key: value[:70] for key, value in batch.items()} for batch in (first, salted)))
    for one, other, start in ((plain, salted, 21), (first, salted, 70)):
        equal = (one["image"][start:] == other["image"][start:]).all(axis=(1, 2, 3))
        assert not equal.any()
    same(salted, take(TRAIN, 6, salts=SALTS))


def test_a_salt_changes_the_crops_of_a_single_picture() -> None:
    source = open_source(DataConfig(train_split="train[:1]"), "train")
    plain, salted = take(source, 1)["image"], take(source, 1, salts=[(4, 1)])["image"]
    assert (plain == salted).all(axis=(1, 2, 3)).tolist() == [True] * 4 + [False] * 12


@given(seed=st.integers(0, 2**70), salt=st.integers(0, 2**40), start=st.integers(0, 3), epoch=...)
@settings(max_examples=25, deadline=None)
def test_every_epoch_of_a_salt_has_every_example_once(
    seed: int, salt: int, start: int, epoch: bool
) -> None:
    source = Numbered(30)
    options = {"batch_size": 30, "first_example": 30 * (start + epoch), "seed": seed}
    salted = labels(source, 1, salts=[(30 * start, salt)], **options)
    assert sorted(salted) == list(range(30))
    assert salted != labels(source, 1, **options)
    assert salted != labels(source, 1, salts=[(30 * start, salt + 1)], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 32},
        {"data": dataclasses.replace(DATA, threads=5, prefetch_batches=2)},
        {"first_example": 48},
        {"first_example": 71},
        {"process_count": 2},
    ],
    ids=str,
)
def test_a_salted_order_does_not_depend_on_how_it_is_read(options: dict[str, Any]) -> None:
    whole = take(TRAIN, 8, salts=SALTS)
    start, size = options.get("first_example", 0), options.get("batch_size", 16)
    rows = np.arange(len(whole["labels"]))
    if "process_count" in options:
        rows = rows[rows % 16 < 8]
    rows = rows[start:]
    batches = len(rows) // (size // options.get("process_count", 1))
    found = take(TRAIN, batches, salts=SALTS, **options)
    rows = rows[: len(found["labels"])]
    same(found, {key: value[rows] for key, value in whole.items()})


@pytest.mark.parametrize("salts", [(), SALTS])
def test_keys_are_those_of_the_examples_trained_on(salts: Salts) -> None:
    found = labels(Numbered(40), 7, first_example=11, seed=5, salts=salts)
    keys = example_keys(Numbered(40), Order(40, 5, tuple(salts)), range(11, 123))
    assert keys == [f"picture {label}" for label in found]


def test_keys_of_files_that_vanished_are_their_paths(tmp_path: pathlib.Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "1.png")
    data = DataConfig(source="folder", path=str(tmp_path), validation_share=0.01)
    source = open_source(data, "train")
    keys = example_keys(source, Order(2, 0), range(2))
    (tmp_path / "a/1.png").unlink()
    assert example_keys(source, Order(2, 0), range(2)) == keys


@pytest.mark.parametrize("crop", ["tensorflow", "efficientnet", "torchvision", "none"])
@pytest.mark.parametrize("antialias", [False, True])
def test_images_are_crops_of_whole_pictures(
    tmp_path: pathlib.Path, crop: Law, antialias: bool
) -> None:
    rng = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 1 + index
        pixels = rng.integers(0, 256, (70 + index, 90, 3), np.uint8)
        picture = Image.fromarray(pixels).convert("L" if index == 3 else "RGB")
        picture.save(folder / f"{index}.jpg", exif=exif, progressive=index == 4)
    data = DataConfig(source="folder", path=str(tmp_path), validation_share=0.0, crop=crop)
    source = open_source(data, "train")
    preprocessing = dataclasses.replace(squashed(32), antialias=antialias)
    found = take(source, 1, data=data, preprocessing=preprocessing)
    order_seed, crop_key = np.random.SeedSequence(0).generate_state(2, np.uint64)
    order = grain.MapDataset.range(6).shuffle(seed=int(order_seed % 2**32)).repeat()
    for position, image in enumerate(found["image"]):
        pixels = decode(source[order[position]].encoded, exif=True)
        box = random_box(
            crop,
            *pixels.shape[:2],
            area=data.crop_area,
            aspect=data.crop_aspect,
            image_size=32,
            rng=np.random.Generator(np.random.Philox(key=[crop_key, position])),
        )
        np.testing.assert_array_equal(image, resize(box.cut(pixels), preprocessing))


def test_positions_far_away_cost_nothing() -> None:
    start = time.perf_counter()
    assert len(labels(Numbered(100), 1, first_example=10**15)) == 16
    assert time.perf_counter() - start < 2


def test_batches_larger_than_the_data_set() -> None:
    found = labels(Numbered(5), 1, batch_size=20)
    assert all(found.count(label) == 4 for label in range(5))


def test_batches_that_do_not_divide_by_the_processes_are_an_error() -> None:
    with pytest.raises(DataError, match="batch size is 16"):
        take(TRAIN, 1, process_count=3)
    with pytest.raises(DataError, match=r"evaluation.batch_size is 256"):
        evaluated(EVAL, batch_size=256, process_count=3)


class Slow(Numbered):
    """Takes its time, and counts what it was asked for."""

    reads = 0

    def __getitem__(self, index: int) -> Record:
        self.reads += 1
        time.sleep(0.005)
        return super().__getitem__(index)


def test_closing_stops_the_threads_at_once() -> None:
    before, source = set(threading.enumerate()), Slow(1000)
    batches = opened(source, batch_size=64)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    reads = source.reads
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    # Each of the two threads may finish its task of 8 pictures; 256 were asked for.
    assert source.reads <= reads + 16
    assert next(batches, None) is None


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_evaluation_has_every_example_once(process_count: int) -> None:
    parts = [
        list(evaluated(EVAL, process_index=index, process_count=process_count))
        for index in range(process_count)
    ]
    assert {len(part) for part in parts} == {4}
    whole = {
        key: np.concatenate([part[key] for batch in zip(*parts) for part in batch])
        for key in ("image", "labels", "mask")
    }
    assert whole["image"].shape == (32, 32, 32, 3)
    assert whole["mask"].dtype == np.bool_
    assert whole["mask"].tolist() == [True] * 30 + [False] * 2
    assert whole["labels"][:30].tolist() == [list(EVAL[index].labels) for index in range(30)]
    assert (whole["image"][30:] == 0).all()
    assert (whole["image"][:30].max(axis=(1, 2, 3)) > 0).all()


def test_evaluation_sees_the_centre_or_the_whole(tmp_path: pathlib.Path) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255
    for label in "ab":
        for part in ("train", "val"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "picture.png")
    data = DataConfig(source="folder", path=str(tmp_path), threads=1)
    source = open_source(data, "eval")
    for preprocessing, share in ((cropped(32), 1.0), (squashed(32), 0.5)):
        (batch,) = evaluated(source, data, preprocessing=preprocessing)
        assert (batch["image"][:2] == 255).mean() == pytest.approx(share, abs=0.05)


def test_an_order_of_another_source_is_an_error() -> None:
    examples = TrainExamples(
        order=Order(19, seed=0), data=DATA, preprocessing=squashed(32), batch_size=16
    )
    with pytest.raises(ValueError, match="order is of 19 examples, the source has 20"):
        make_batches(Numbered(20), examples)


@pytest.mark.parametrize("make", [take, lambda *a, **k: next(evaluated(*a, **k))])
def test_resizing_is_preprocessings_alone(make: Callable[..., HostBatch]) -> None:
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    data = dataclasses.replace(DATA, interpolation="bicubic", mean=mean, std=std)
    arguments = () if make is not take else (1,)
    same(make(EVAL, *arguments), make(EVAL, *arguments, data=data))
    bicubic = dataclasses.replace(squashed(32), interpolation="bicubic")
    found = make(EVAL, *arguments, data=DATA, preprocessing=bicubic)
    assert (found["image"] != make(EVAL, *arguments)["image"]).any()


def test_an_empty_evaluation_has_no_batches() -> None:
    assert list(evaluated(Numbered(0))) == []


def test_unreadable_pictures_are_named_once_and_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, unreadable = Numbered(20, unreadable=(3, 4, 19)), Unreadable(100)
    with caplog.at_level(logging.WARNING):
        found = labels(source, 4, batch_size=20, unreadable=unreadable)
    healthy = labels(Numbered(20), 4, batch_size=20)
    replaced = [one for one, label in zip(found, healthy) if label in (3, 4, 19)]
    assert [one for one, label in zip(found, healthy) if label not in (3, 4, 19)] == [
        label for label in healthy if label not in (3, 4, 19)
    ]
    # Drawn from all, anew for every position.
    assert len({*replaced}) > 6
    assert {*replaced}.isdisjoint({3, 4, 19})
    assert len(unreadable) == 3
    assert unreadable.reasons["picture 4"] == "it is no picture in a known format"
    assert sum("picture 4: it is no picture" in message for message in caplog.messages) == 1


class OfClasses(Numbered):
    """Numbered pictures, of which the classes are known."""

    def __init__(self, classes: Sequence[int], unreadable: Collection[int]) -> None:
        super().__init__(len(classes), unreadable)
        self.classes = np.array(classes)
        self.class_names = tuple(map(str, range(max(classes) + 1)))

    @property
    def class_counts(self) -> tuple[int, ...]:
        return tuple(np.bincount(self.classes).tolist())

    def same_class(self, index: int) -> Any:
        return np.flatnonzero(self.classes == self.classes[index])

    def __getitem__(self, index: int) -> Record:
        return super().__getitem__(index)._replace(labels=(int(self.classes[index]),))


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_replacements_keep_the_shares_of_classes(data: st.DataObject) -> None:
    sound = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    broken = data.draw(st.lists(st.integers(0, 12), min_size=len(sound), max_size=len(sound)))
    classes = [label for label, counts in enumerate(zip(sound, broken)) for _ in range(sum(counts))]
    unreadable: set[int] = set()
    for label in range(len(sound)):  # The last of each class, as neighbours.
        members = [index for index, its in enumerate(classes) if its == label]
        unreadable |= {*members[sound[label] :]}
    source = OfClasses(classes, unreadable)
    limit = Unreadable(len(classes))
    found = labels(source, 2, batch_size=len(classes), unreadable=limit)
    # Every epoch has each example once, so the shares are exact.
    assert [found.count(label) for label in range(len(sound))] == [
        2 * count for count in source.class_counts
    ]


def test_replacements_are_drawn_from_all_sound_pictures_of_a_class() -> None:
    source = OfClasses([0] * 44 + [1] * 4, unreadable=range(4, 44))
    order = Order(48, seed=0)
    reader = Reader(source, max_labels=1, unreadable=Unreadable(100))
    counts = np.zeros(48)
    for position in range(480):
        draws = functools.partial(order.replacements, position)
        whole = functools.partial(Box, 0, 0)
        pixels, _ = reader.read_or_replace(order.example(position), whole, draws)
        counts[pixels.max()] += 1  # Its brightness is its number.
    assert counts[44:].tolist() == [10] * 4
    assert counts[:4].sum() == 440
    assert counts[:4].min() > 80


def test_without_a_sound_picture_of_its_class_one_of_any_is_drawn() -> None:
    source = OfClasses([0] * 5 + [1] * 5 + [2] * 5, unreadable=range(5))
    found = labels(source, 20, batch_size=15)
    assert found.count(0) == 0
    assert abs(found.count(1) - found.count(2)) < 50


def test_too_many_unreadable_pictures_stop_the_run() -> None:
    source = Numbered(20, unreadable=(3, 4, 19))
    assert len(labels(source, 3, data=dataclasses.replace(DATA, max_unreadable=3))) == 48
    with pytest.raises(DataError, match=r"3 pictures cannot be read.*data\.max_unreadable"):
        labels(source, 3, data=dataclasses.replace(DATA, max_unreadable=2))


def test_a_count_is_shared_between_loaders() -> None:
    unreadable = Unreadable(3)
    list(evaluated(Numbered(20, (3, 4, 19)), unreadable=unreadable))
    labels(Numbered(20, (3, 4, 19)), 4, unreadable=unreadable)
    assert len(unreadable) == 3
    with pytest.raises(DataError, match="4 pictures cannot be read"):
        labels(Numbered(20, (5,)), 4, unreadable=unreadable)


def test_nothing_readable_at_all_is_an_error_not_a_loop() -> None:
    with pytest.raises(DataError, match="none of the 3 pictures"):
        labels(Numbered(3, unreadable=(0, 1, 2)), 1)


def test_unreadable_pictures_are_masked_in_evaluation() -> None:
    source, unreadable = Numbered(20, unreadable=(3, 19)), Unreadable(100)
    batches = list(evaluated(source, unreadable=unreadable))
    mask = np.concatenate([batch["mask"] for batch in batches])
    found = np.concatenate([batch["labels"][:, 0] for batch in batches])
    expected = [label for label in range(20) if label not in (3, 19)]
    assert found[mask].tolist() == expected
    assert len(mask) == 24
    assert set(unreadable.reasons) == {"picture 3", "picture 19"}


def test_files_that_vanish_are_unreadable(tmp_path: pathlib.Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{index}.png")
    data = DataConfig(source="folder", path=str(tmp_path), threads=1)
    source = open_source(data, "train")
    gone = pathlib.Path(source[0].key)
    gone.unlink()
    unreadable = Unreadable(5)
    take(source, 1, data=data, unreadable=unreadable)
    (reason,) = unreadable.reasons.values()
    assert str(gone) in reason


def test_labels_out_of_range_are_an_error() -> None:
    source = Numbered(5)
    source.class_names = ("a", "b", "c")
    with pytest.raises(DataError, match=r"has label [34], but there are 3 classes"):
        labels(source, 2)


OPEN = (
    "from effnetv2_jax.data import open_source as o; from effnetv2_jax.config.experiment import *"
)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import effnetv2_jax.data", ["tensorflow_datasets", "cv2", "jax"]),
        ("import effnetv2_jax.data.pictures.decode", ["tensorflow_datasets", "cv2", "jax"]),
        (f"{OPEN}; o(DataConfig(), 'eval')[0]", ["tensorflow", "jax", "grain"]),
        ("import effnetv2_jax.data.batches.pipeline", ["tensorflow_datasets", "jax", "grain"]),
        ("import effnetv2_jax.data.prepare.command", ["tensorflow", "jax", "grain"]),
    ],
)
def test_a_part_does_not_load_what_it_does_not_use(code: str, absent: list[str]) -> None:
    code = f"{code}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_unknown_names_are_an_attribute_error() -> None:
    import effnetv2_jax.data

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        effnetv2_jax.data.nothing  # noqa: B018
