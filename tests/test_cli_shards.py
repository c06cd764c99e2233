"""Parts of a long list, and files that go on where a command was stopped."""

import json
from pathlib import Path

import pytest

from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.shards import continued, take_shard

PATHS = [f"pictures/{index}.jpg" for index in range(10)]


def test_shards_are_all_of_a_list_and_about_equal() -> None:
    shards = [take_shard(PATHS, f"{index}/4") for index in range(1, 5)]
    assert sorted(path for shard in shards for path in shard) == PATHS
    assert [len(shard) for shard in shards] == [3, 3, 2, 2]
    assert take_shard(PATHS, "1/1") == PATHS
    assert take_shard(PATHS[:1], "2/2") == []


@pytest.mark.parametrize("shard", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0"])
def test_what_is_no_shard(shard: str) -> None:
    with pytest.raises(CommandError, match=r"the third of 64 is --shard=3/64"):
        take_shard(PATHS, shard)


def write(file: Path, count: int) -> list[str]:
    """Adds lines for so many of the pictures that are left, and returns these."""
    with continued(file, PATHS) as (stream, left):
        for path in left[:count]:
            stream.write(json.dumps({"path": path}) + "\n")
        return list(left)


def test_a_file_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert write(file, 4) == PATHS
    with file.open("a") as stream:
        stream.write('{"path": "pictures/4.jp')  # Killed while it wrote.
    assert write(file, 3) == PATHS[4:]
    assert write(file, 10) == PATHS[7:]
    assert write(file, 10) == []
    assert [json.loads(line)["path"] for line in file.read_text().splitlines()] == PATHS


@pytest.mark.parametrize("line", ['{"path": "other.jpg"}', "no JSON", "[1]", '{"path": 3}'])
def test_a_file_of_something_else_stays_as_it_is(line: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    write(file, 2)
    before = file.read_text() + line + "\n"
    file.write_text(before)
    with pytest.raises(CommandError, match="other pictures from line 3 on"):
        write(file, 1)
    assert file.read_text() == before


def test_more_lines_than_pictures(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    write(file, 10)
    with pytest.raises(CommandError, match="from line 3 on"), continued(file, PATHS[:2]):
        pass
    with pytest.raises(CommandError, match=r"none.*: No such file"):
        write(tmp_path / "none" / "out.json", 1)
