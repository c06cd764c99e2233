"""Damaged pictures: no crash, no hang, bounded memory, and the same batches everywhere."""

import pytest
from chaos.mutated_pictures import SECONDS, mutated, run


@pytest.mark.parametrize(
    ("count", "seed"), [(200, 1), pytest.param(2000, 0, marks=pytest.mark.long)]
)
def test_damaged_pictures_neither_crash_nor_hang_nor_differ(count: int, seed: int) -> None:
    found = run(count, seed)
    assert sum(found["outcomes"].values()) == count
    assert found["seconds_max"] < SECONDS
    # Otherwise the damage would be too weak, or too strong, to tell anything.
    assert 0.2 < found["refused"] / count < 0.8


def test_the_damage_belongs_to_the_seed() -> None:
    assert mutated(24, 3) == mutated(24, 3)
    assert mutated(24, 3) != mutated(24, 4)
