"""Processes that decode: the same batches, the same errors, and nothing left behind."""

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny
from loaded_modules import LoadedModules
from test_data_pipeline import DATA, EVAL, TRAIN, Numbered, evaluated, labels, opened, same, take
from test_data_tfrecord import example, framed

from effnetv2_jax.data import (
    DataError,
    Record,
    Source,
    Unreadable,
    Workers,
    make_workers,
)
from effnetv2_jax.data.batches import workers
from effnetv2_jax.data.sources.folder import FolderSource
from effnetv2_jax.data.sources.tfrecord import TfrecordSource
from effnetv2_jax.data.sources.unlabelled import FilesSource
from effnetv2_jax.train.loop import train


@pytest.fixture(scope="module")
def three() -> Iterator[Workers]:
    with Workers(3, threads=2) as found:
        yield found


def processes_of(found: Workers) -> list[int]:
    return [worker._process.pid for worker in found._workers]


def runs(pid: int) -> bool:
    """Whether a process, which may be a stranger's child, is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(condition) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_training_batches_are_those_of_threads(three: Workers, batch_size: int) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "first_example": 7, "salts": [(20, 3)]}
    same(take(TRAIN, 4, workers=three, **options), take(TRAIN, 4, **options))


@pytest.mark.parametrize("kind", ["folder", "files", "tfrecord"])
def test_every_source_can_be_read_elsewhere(
    three: Workers, kind: str, tmp_path: pathlib.Path
) -> None:
    pictures = [TRAIN[index].encoded for index in range(0, 40, 4)]
    paths = [tmp_path / "pictures" / "ab"[index % 2] / f"{index}.jpg" for index in range(10)]
    for path, encoded in zip(paths, pictures, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    source: Source
    match kind:
        case "folder":
            source = FolderSource(str(tmp_path / "pictures"), "train", validation_share=0)
        case "files":
            source = FilesSource([str(path) for path in paths])
        case _:
            records = b"".join(framed(example(image=each, label=1)) for each in pictures)
            (tmp_path / "train-00000-of-00001").write_bytes(records)
            source = TfrecordSource(str(tmp_path), "train", num_classes=2)
    found = evaluated(source, batch_size=5, workers=three)
    expected = evaluated(source, batch_size=5)
    for one, other in zip(found, expected, strict=True):
        assert one["mask"].all()
        same(one, other)


@pytest.mark.parametrize("kind", ["embedded", "folder", "tfrecord"])
def test_a_process_loads_neither_jax_nor_grain(kind: str, tmp_path: pathlib.Path) -> None:
    match kind:
        case "embedded":
            source: Source = TRAIN
        case "folder":
            for name in ("a/1.jpg", "b/2.jpg"):
                (tmp_path / name).parent.mkdir()
                (tmp_path / name).write_bytes(TRAIN[0].encoded)
            source = FolderSource(str(tmp_path), "train", validation_share=0)
        case _:
            record = framed(example(image=TRAIN[0].encoded, label=1))
            (tmp_path / "train-00000-of-00001").write_bytes(2 * record)
            source = TfrecordSource(str(tmp_path), "train", num_classes=2)
    with Workers(1) as workers:
        for batches in (opened, evaluated):
            unreadable = Unreadable(100)
            found = batches(
                LoadedModules(source), batch_size=8, unreadable=unreadable, workers=workers
            )
            with contextlib.closing(found):
                assert next(found)["image"].any()
            loaded = max(unreadable.reasons.values(), key=len).split()
            assert {type(source).__module__, "effnetv2_jax.data.batches.threads"} <= set(loaded)
            assert {"jax", "grain", "flax", "tensorflow"}.isdisjoint(loaded)


def test_processes_share_a_batch_out(three: Workers) -> None:
    halves = [take(TRAIN, 2, process_index=i, process_count=2, workers=three) for i in (0, 1)]
    both = [
        np.concatenate(pair) for pair in zip(*(half["labels"].reshape(2, 8) for half in halves))
    ]
    np.testing.assert_array_equal(np.concatenate(both), take(TRAIN, 2)["labels"][:, 0])


def test_evaluation_batches_are_those_of_threads(three: Workers) -> None:
    found = list(evaluated(EVAL, workers=three))
    expected = list(evaluated(EVAL))
    for one, other in zip(found, expected, strict=True):
        same(one, other)
    assert found[-1]["mask"].tolist() == [True] * 6 + [False] * 2


def test_batches_stay_what_they_are(three: Workers) -> None:
    # No memory is used for a second batch while a first one is held.
    with contextlib.closing(opened(TRAIN, workers=three)) as found:
        held = list(itertools.islice(found, 12))
    whole = take(TRAIN, 12)
    same({key: np.concatenate([batch[key] for batch in held]) for key in whole}, whole)


def test_several_stages_at_once_and_one_that_ends_early(three: Workers) -> None:
    expected = take(TRAIN, 6, image_size=48)
    given_up = opened(TRAIN, image_size=40, batch_size=64, workers=three)
    next(given_up)
    found: list = []
    others = [
        threading.Thread(target=lambda: found.append(take(TRAIN, 6, image_size=48, workers=three)))
        for _ in range(3)
    ]
    for thread in others:
        thread.start()
    given_up.close()
    for thread in others:
        thread.join()
    assert len(found) == 3
    for each in found:
        same(each, expected)


def test_unreadable_pictures_are_named_once_and_replaced(
    three: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    source, unreadable = Numbered(20, unreadable=(3, 4, 19)), Unreadable(100)
    with caplog.at_level(logging.WARNING):
        found = labels(source, 4, batch_size=20, unreadable=unreadable, workers=three)
    assert sum("picture 4: it is no picture" in message for message in caplog.messages) == 1
    assert set(unreadable.reasons) == {"picture 3", "picture 4", "picture 19"}
    assert found == labels(source, 4, batch_size=20)


def test_errors_arrive(three: Workers) -> None:
    source = Numbered(20, unreadable=(3, 4, 19))
    data = dataclasses.replace(DATA, max_unreadable=2)
    with pytest.raises(DataError, match=r"3 pictures cannot be read.*data\.max_unreadable"):
        labels(source, 3, data=data, workers=three)
    with pytest.raises(DataError, match="none of the 3 pictures"):
        labels(Numbered(3, unreadable=(0, 1, 2)), 1, workers=three)
    source = Numbered(20)
    source.class_names = source.class_names[:5]
    with pytest.raises(DataError, match="but there are 5 classes"):
        labels(source, 1, workers=three)
    assert len(labels(Numbered(20), 1, workers=three)) == 16


class Odd(Exception):
    """Cannot be pickled and loaded again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")
        self.lock = threading.Lock()


class Even(Exception):
    """Can be pickled, and not loaded again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


class Failing(Numbered):
    error: type[Exception] = Odd

    def __getitem__(self, index: int) -> Record:
        raise self.error(1, 2)


class FailingToo(Failing):
    error = Even


@pytest.mark.parametrize("source", [Failing(20), FailingToo(20)])
def test_an_error_that_cannot_be_sent_is_reported(three: Workers, source: Failing) -> None:
    with pytest.raises(RuntimeError, match=f"{source.error.__name__}: 1 and 2"):
        labels(source, 1, workers=three)
    assert len(labels(Numbered(20), 1, workers=three)) == 16


class Unread(Numbered):
    def __getitem__(self, index: int) -> Record:
        time.sleep(0.01)
        return Record(f"picture {index}", b"no picture", (0,))


def test_too_many_unreadable_pictures_stop_a_process_before_its_rows_are_made(
    three: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match="4 pictures cannot"):
        labels(Unread(3000), 1, data=dataclasses.replace(DATA, max_unreadable=3), workers=three)
    assert time.monotonic() - began < 15
    assert sum("no picture" in message for message in caplog.messages) == 3


class Locked(Numbered):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.lock = threading.Lock()


class Elsewhere(Numbered):
    """As one that is defined where other processes do not find it."""

    def __reduce__(self) -> tuple:
        return _only_here, (os.getpid(),)


def _only_here(pid: int) -> Numbered:
    if pid != os.getpid():
        raise AttributeError("no such class")
    return Numbered(20)


@pytest.mark.parametrize("source", [Locked(20), Elsewhere(20)])
def test_a_source_that_cannot_be_sent_is_refused(three: Workers, source: Numbered) -> None:
    with pytest.raises(DataError, match=r"(no such class|pickle).*data\.processes=0"):
        labels(source, 1, workers=three)


class Slow(Numbered):
    def __getitem__(self, index: int) -> Record:
        time.sleep(0.05)
        return super().__getitem__(index)


def test_a_process_that_is_killed_ends_the_run_with_a_reason() -> None:
    with Workers(2) as found:
        with contextlib.closing(opened(Slow(1000), workers=found)) as batches:
            next(batches)
            os.kill(processes_of(found)[1], signal.SIGTERM)  # It ignores that.
            next(batches)
            os.kill(processes_of(found)[1], signal.SIGKILL)
            with pytest.raises(DataError, match=r"status -9.*data\.processes"):
                list(batches)
        with pytest.raises(DataError, match="status -9"):
            take(TRAIN, 4, workers=found)


class Broken(Numbered):
    """Ends the process that reads it, and says why."""

    def __getitem__(self, index: int) -> Record:
        os._exit(7)


def test_a_process_that_ends_by_itself_ends_the_run() -> None:
    with Workers(2) as found, pytest.raises(DataError, match=r"status 7; its error output"):
        take(Broken(20), 1, workers=found)


def test_a_signal_while_they_come_up_changes_nothing() -> None:
    with Workers(2) as found:
        for pid in processes_of(found):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        for pid in processes_of(found):
            os.kill(pid, signal.SIGINT)
        same(take(TRAIN, 1, workers=found), take(TRAIN, 1))
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_they_run_the_same_program_wherever_they_are_started(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of Python's and of ours: neither must be found before the right one.
    (tmp_path / "queue.py").write_text("raise ImportError('the wrong one')")
    package = tmp_path / "effnetv2_jax"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*filter(None, sys.path), tmp_path])
    with Workers(1) as found:
        same(take(TRAIN, 1, workers=found), take(TRAIN, 1))


def run_here(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that imports these tests, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


CROWDED = """
import resource
from test_data_pipeline import TRAIN, opened, take
from effnetv2_jax.data import Workers
from effnetv2_jax.config.experiment import DataConfig
with Workers(2) as found:
    take(TRAIN, 1, workers=found)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    try:
        held += opened(TRAIN, DataConfig(), workers=found)
    except OSError as error:
        print(len(held), error)
"""


def test_too_few_file_descriptors_are_an_error_and_no_end_without_one() -> None:
    done = run_here(CROWDED)
    assert "Too many open files" in done.stdout, done.stderr


def test_nothing_is_left_behind() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with Workers(2) as found:
        pids = processes_of(found)
        take(TRAIN, 4, workers=found)
        assert all(map(runs, pids))
    assert not any(map(runs, pids))
    with Workers(2):
        pass  # Before they have come up.
    assert len(os.listdir("/proc/self/fd")) <= descriptors


ORPHANS = """
import os, signal
from test_data_pipeline import TRAIN, take
from test_data_workers import processes_of
from effnetv2_jax.data import Workers
found = Workers(2)
take(TRAIN, 1, workers=found)
print(*processes_of(found), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_do_not_outlive_the_training_that_is_killed() -> None:
    done = run_here(ORPHANS)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert soon(lambda: not any(map(runs, pids)))


def _refused(*_: object) -> int:
    raise PermissionError


@pytest.mark.parametrize(
    ("cores", "fields", "expected"),
    [
        (2, {}, None),
        (7, {}, None),
        (8, {}, (2, 4)),
        (16, {}, (4, 4)),
        (22, {}, (5, 5)),
        (224, {}, (32, 7)),
        (2, {"processes": 2}, (2, 1)),
        (64, {"processes": 0}, None),
        (64, {"threads": 3}, None),
        (2, {"threads": 8, "processes": 3}, (3, 3)),
    ],
)
def test_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, cores: int, fields: dict, expected: tuple[int, int] | None
) -> None:
    asked = []
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "Workers", lambda *a, **k: asked.append((*a, *k.values())))
    data = dataclasses.replace(DATA, **({"threads": None} | fields))
    make_workers(data)
    assert asked == ([] if expected is None else [expected])

    monkeypatch.setattr(os, "memfd_create", _refused)
    asked.clear()
    if data.processes:
        with pytest.raises(DataError, match=r"data\.processes=\d needs memfd_create"):
            make_workers(data)
    else:
        make_workers(data)
    assert not asked


@pytest.mark.usefixtures("quick_compilation")
def test_a_run_is_the_same_with_them(tmp_path: pathlib.Path) -> None:
    found = []
    for processes in (0, 2):
        experiment = tiny.experiment(steps=4, stages=tiny.STAGES[:1])
        data = dataclasses.replace(experiment.data, processes=processes)
        workdir = tmp_path / str(processes)
        found.append(train(dataclasses.replace(experiment, data=data), workdir))
    assert found[0] == found[1]
