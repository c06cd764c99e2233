"""Full disks, damaged files, directories that vanish: no state is lost that was whole."""

import contextlib
import functools
import gc
import json
import os
import pathlib
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import Processes

from effnetv2_jax.config.experiment import CheckpointConfig
from effnetv2_jax.outputs.checkpoints import BrokenCheckpointError, CheckpointError, Checkpoints

# What Orbax leaves behind when it fails to write or read.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Else another test, or the end of all, is blamed for what Orbax leaves behind."""
    yield
    gc.collect()


EVERY_STEP = CheckpointConfig(every_steps=1, keep_last=5)
ONE = CheckpointConfig(every_steps=1, keep_last=1)

State = dict[str, Any]


def make_state(step: int) -> State:
    rng = np.random.default_rng(step)
    leaves = {str(i): jnp.asarray(rng.random((16, 64)), jnp.float32) for i in range(4)}
    return {"params": leaves, "step": jnp.int32(step)}


LIKE = make_state(0)


def same(actual: State, expected: State) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), actual, expected))


def steps(directory: pathlib.Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def save(directory: pathlib.Path, *which: int) -> None:
    with Checkpoints(directory, EVERY_STEP) as checkpoints:
        for step in which:
            checkpoints.save(step, make_state(step), metrics={"top1": 0.5}, extra={"salt": step})


def fails(checkpoints: Checkpoints, step: int) -> str | None:
    """Why the step cannot be saved."""
    try:
        checkpoints.save(step, make_state(step))
        checkpoints.wait()
    except CheckpointError as error:
        return str(error)
    return None


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own, of 1 MiB and 400 files and folders."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system, as root has it")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def leave_bytes(disk: pathlib.Path, number: int) -> None:
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * max(status.f_bavail * status.f_bsize - number, 0))


def leave_files(disk: pathlib.Path, number: int) -> None:
    (disk / "filler").mkdir()
    for index in range(os.statvfs(disk).f_favail - number):
        (disk / "filler" / str(index)).touch()


def clear(disk: pathlib.Path) -> None:
    filler = disk / "filler"
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink()


@pytest.mark.parametrize(
    "again", ["the next start", pytest.param("the same run", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("fill", "unit"), [(leave_bytes, 4096), (leave_files, 1)])
def test_a_full_disk_at_every_moment_of_saving(
    small_disk: pathlib.Path,
    fill: Callable[[pathlib.Path, int], None],
    unit: int,
    again: str,
) -> None:
    directory = small_disk / "run" / "checkpoints"
    with Checkpoints(directory, ONE) as checkpoints:
        checkpoints.save(1, make_state(1))
    good, failures = 1, 0
    for left in range(100):
        with contextlib.ExitStack() as stack:
            checkpoints = stack.enter_context(Checkpoints(directory, ONE))
            fill(small_disk, left * unit)
            message = fails(checkpoints, good + 1)
            if not message:
                clear(small_disk)
                break
            assert re.fullmatch(
                rf"checkpoints in {directory}: cannot save step {good + 1}: No space left on device"
                rf"(: \S+)?\. The checkpoint of step {good} is there\. Make room .*",
                message,
            )
            failures += 1
            assert same(checkpoints.restore(LIKE), make_state(good))
            if again == "the next start":
                stack.close()
                clear(small_disk)
                checkpoints = stack.enter_context(Checkpoints(directory, ONE))
                step, state = checkpoints.restore_newest(LIKE, report=pytest.fail)
                assert step == good
                assert same(state, make_state(good))
            else:
                clear(small_disk)
            good += 1
            assert checkpoints.save(good, make_state(good))
            checkpoints.wait()
            assert same(checkpoints.restore(LIKE), make_state(good))
        assert steps(directory) == [str(good)], "leftovers are cleaned up"
    assert failures > 5
    assert steps(directory) == [str(good + 1)]


def test_a_read_only_file_system(small_disk: pathlib.Path) -> None:
    directory = small_disk / "run" / "checkpoints"
    save(directory, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Checkpoints(directory, EVERY_STEP) as checkpoints:
        assert same(checkpoints.restore(LIKE), make_state(1))
        message = fails(checkpoints, 2) or ""
        assert f"{directory}: cannot save step 2: Read-only file system: " in message
        assert "The checkpoint of step 1" in message
    with pytest.raises(CheckpointError, match=r"cannot use .*/other for .*: Read-only file system"):
        Checkpoints(small_disk / "other", EVERY_STEP)


def test_a_directory_that_became_a_file(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, EVERY_STEP)
    shutil.rmtree(directory)
    directory.touch()
    # Orbax looks into the directory in the background, too, and may have found it gone.
    complaint = f"{directory}: cannot save step 1: (Not a directory|No such file or directory)"
    with pytest.raises(CheckpointError, match=complaint), checkpoints:
        checkpoints.save(1, make_state(1))


def test_a_directory_that_vanished_is_made_again_or_named(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "run" / "checkpoints"
    with Checkpoints(directory, EVERY_STEP) as checkpoints:
        checkpoints.save(1, make_state(1))
        checkpoints.wait()
        shutil.rmtree(tmp_path / "run")
        message = fails(checkpoints, 2)
        if message:
            assert f"{directory}: cannot save step 2: No such file" in message
        else:
            assert same(checkpoints.restore(LIKE, 2), make_state(2))


def test_an_error_in_the_run_is_not_hidden_by_one_in_saving(small_disk: pathlib.Path) -> None:
    def run() -> None:
        with Checkpoints(small_disk / "checkpoints", EVERY_STEP) as checkpoints:
            leave_bytes(small_disk, 20 * 1024)
            checkpoints.save(1, make_state(1))
            raise KeyError

    with pytest.raises(KeyError) as caught:
        run()
    assert "cannot save step 1: No space left on device" in caught.value.__notes__[0]


def damages(path: pathlib.Path) -> Iterator[Callable[[], object]]:
    """Ways to damage a file."""
    content = path.read_bytes()
    yield path.unlink
    for length in {0, len(content) // 2, max(len(content) - 1, 0)}:
        yield functools.partial(path.write_bytes, content[:length])
    for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
        for bit in (0, 6):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield functools.partial(path.write_bytes, changed)


def test_no_damage_to_any_file_goes_unnoticed(tmp_path: pathlib.Path) -> None:
    whole = tmp_path / "whole"
    save(whole, 1)
    directory = tmp_path / "checkpoints"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    noticed = dict.fromkeys(files, 0)
    for file in files:
        shutil.copytree(whole, directory)
        for damage in damages(directory / file):
            damage()
            with Checkpoints(directory, None) as checkpoints:
                try:
                    state = checkpoints.restore(LIKE)
                    extra, metrics = checkpoints.extra(), checkpoints.metrics()
                except BrokenCheckpointError:
                    noticed[file] += 1
                else:
                    assert same(state, make_state(1)), file
                    assert (extra, metrics) == ({"salt": 1}, {"top1": 0.5}), file
            shutil.copy(whole / file, directory / file)
        shutil.rmtree(directory)
    assert sum(noticed.values()) > 30


def test_another_state_in_place_of_the_saved_one_is_noticed(tmp_path: pathlib.Path) -> None:
    save(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2" / "state")
    shutil.copytree(tmp_path / "1" / "state", tmp_path / "2" / "state")
    with Checkpoints(tmp_path, None) as checkpoints:
        with pytest.raises(
            BrokenCheckpointError,
            match=rf"{tmp_path}/2 cannot be read: its params is not what was saved",
        ):
            checkpoints.restore(LIKE)
        with pytest.raises(BrokenCheckpointError, match="its params"):
            checkpoints.restore_parts({"params": LIKE["params"]})
        part = {"params": {"0": LIKE["params"]["0"]}}
        assert same(
            checkpoints.restore_parts(part), {"params": {"0": make_state(1)["params"]["0"]}}
        )


def test_checkpoints_of_old_have_no_checksums(tmp_path: pathlib.Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "1" / "extra" / "metadata"
    extra = json.loads(path.read_text())
    del extra["_checksums"]
    path.write_text(json.dumps(extra))
    with Checkpoints(tmp_path, None) as checkpoints:
        assert same(checkpoints.restore(LIKE), make_state(1))
        assert checkpoints.extra() == {"salt": 1}


def break_(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint / "state" / "d")


def test_falls_back_on_the_newest_whole_one(tmp_path: pathlib.Path) -> None:
    directory, aside = tmp_path / "checkpoints", tmp_path / "broken_checkpoints"
    save(directory, 1, 2, 3, 4)
    for _ in range(2):
        break_(directory / "4")
        (directory / "3" / "metrics" / "metrics").write_text('{"top')
        reported: list[str] = []
        with Checkpoints(directory, None) as checkpoints:
            assert checkpoints.restore_newest(LIKE, report=reported.append)[0] == 2
            assert steps(directory) == ["1", "2", "3", "4"]
        assert [str(directory / "4") in reported[0], str(directory / "3") in reported[1]] == [1, 1]
        reported.clear()
        with Checkpoints(directory, EVERY_STEP) as checkpoints:
            step, state = checkpoints.restore_newest(LIKE, report=reported.append)
            assert step == 2
            assert same(state, make_state(2))
            assert checkpoints.latest_step() == 2
            assert steps(directory) == ["1", "2"]
            for step in (3, 4):
                assert checkpoints.save(step, make_state(step))
            assert checkpoints.restore_newest(LIKE, report=pytest.fail)[0] == 4
    assert steps(aside) == ["3", "3.1", "4", "4.1"]
    assert reported[0].endswith(f"; it is now {aside / '4.1'}")
    assert reported[1].endswith(f"; it is now {aside / '3.1'}")


def test_moves_nothing_when_none_is_whole(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    save(directory, 1, 2)
    for step in (1, 2):
        break_(directory / str(step))
    with Checkpoints(directory, EVERY_STEP) as checkpoints:
        with pytest.raises(
            CheckpointError, match=f"none of the checkpoints in {directory} is whole"
        ):
            checkpoints.restore_newest(LIKE, report=pytest.fail)
        assert steps(tmp_path) == ["checkpoints"]
        assert steps(directory) == ["1", "2"]


def test_never_falls_back_on_what_does_not_fit(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    save(directory, 1)
    with Checkpoints(directory, EVERY_STEP) as checkpoints:
        checkpoints.save(2, {"weight": jnp.zeros(2)})
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            checkpoints.restore_newest(LIKE, report=pytest.fail)
        assert not isinstance(caught.value, BrokenCheckpointError)
    assert steps(directory) == ["1", "2"]


SAVED_BY_PROCESSES = """
    import pathlib, shutil, sys
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import multihost_utils
    from effnetv2_jax.config.experiment import CheckpointConfig
    from effnetv2_jax.outputs.checkpoints import Checkpoints
    from effnetv2_jax.outputs.state_checksum import state_checksum
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.parallel.mesh import make_mesh, replicated

    startup.start("on")
    mesh, directory = make_mesh(), pathlib.Path(sys.argv[1])

    def make(step):
        tree = {"params": jnp.arange(8.0) + step, "rows": jnp.arange(4) * step}
        shardings = {"params": replicated(mesh), "rows": replicated(mesh)}
        return {
            name: jax.make_array_from_callback(
                leaf.shape, shardings[name], lambda index, leaf=leaf: np.asarray(leaf)[index]
            )
            for name, leaf in tree.items()
        }

    def values(state):
        return {k: np.asarray(multihost_utils.process_allgather(v, tiled=True)).tolist()
                for k, v in state.items()}

    reported = []
    config = CheckpointConfig(every_steps=1, keep_last=5)
    with Checkpoints(directory, config) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make(step))
        checkpoints.wait()
        multihost_utils.sync_global_devices("saved")
"""

BROKEN_FOR_ALL = """
        if jax.process_index() == 0:
            shutil.rmtree(directory / "3" / "state")
            shutil.rmtree(directory / "2" / "state")
            shutil.copytree(directory / "1" / "state", directory / "2" / "state")
        multihost_utils.sync_global_devices("broken")
        step, state = checkpoints.restore_newest(make(0), report=reported.append)
        assert step == 1, step
        assert values(state) == values(make(1))
        assert checkpoints.latest_step() == 1
        assert checkpoints.save(2, make(2))
        step, state = checkpoints.restore_newest(make(0), report=print)
        assert step == 2 and values(state) == values(make(2))
    assert len(reported) == 2, reported
    print("checksums", state_checksum(make(7)), flush=True)
"""

BROKEN_FOR_ONE = """
    # As where a network file system shows one machine something else.
    mine = directory
    if jax.process_index() == 1:
        mine = directory.with_name("seen_by_1")
        shutil.copytree(directory, mine)
        shutil.rmtree(mine / "3" / "state" / "d")
        (mine / "2" / "extra" / "metadata").write_text("{")
    with Checkpoints(mine, None) as checkpoints:
        step, state = checkpoints.restore_newest(make(0), report=reported.append)
    assert step == 1, step
    assert values(state) == values(make(1))
    print(*reported, sep="\\n", flush=True)
"""


def test_several_processes_fall_back_together(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    script = textwrap.dedent(SAVED_BY_PROCESSES + BROKEN_FOR_ALL)
    outputs = Processes("-c", script, str(directory), folder=tmp_path, count=2).finish()
    assert steps(directory) == ["1", "2"]
    assert steps(tmp_path / "broken_checkpoints") == ["2", "3"]
    printed = [re.findall(r"checksums (.*)", output) for output in outputs]
    assert printed[0] == printed[1]
    assert len(printed[0]) == 1


@pytest.mark.slow
def test_a_checkpoint_that_one_process_cannot_read_counts_as_broken(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "checkpoints"
    script = textwrap.dedent(SAVED_BY_PROCESSES + BROKEN_FOR_ONE)
    first, second = Processes("-c", script, str(directory), folder=tmp_path, count=2).finish()
    for step in (2, 3):
        assert f"checkpoint {directory / str(step)} is broken for another process" in first
        assert f"checkpoint {tmp_path / 'seen_by_1' / str(step)} cannot be read" in second
    assert steps(directory) == ["1", "2", "3"]
