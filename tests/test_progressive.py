"""Progressive learning: published schedules, and the laws of laying stages over a run."""

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_jax.progressive import (
    TRACED,
    Plan,
    Stage,
    linear,
    plan,
    random_resize,
    released_code,
    uniform,
)

OFF = (0.0,) * 4

# model: (image sizes, RandAugment magnitudes, mixup alphas, dropout), as the tables print them.
PAPER: dict[str, tuple[tuple[float, ...], ...]] = {
    "s": ((128, 185, 242, 300), (5, 8.33, 11.67, 15), OFF, (0.1, 0.167, 0.233, 0.3)),
    "m": ((128, 212, 296, 380), (5, 10, 15, 20), (0, 0.067, 0.133, 0.2), (0.1, 0.2, 0.3, 0.4)),
    "l": (
        (128, 212, 296, 380),
        (5, 11.67, 18.33, 25),
        (0, 0.167, 0.333, 0.5),
        (0.1, 0.233, 0.367, 0.5),
    ),
}
LARGE = ((192, 256, 320, 384), (5, 10, 15, 20), (0, 0.167, 0.333, 0.5), (0.4,) * 4)
CODE: dict[str, tuple[tuple[float, ...], ...]] = {
    "b0": ((144, 160, 176, 192), OFF, OFF, (0.2,) * 4),
    "b1": ((144, 160, 176, 192), OFF, OFF, (0.2,) * 4),
    "b2": ((148, 168, 188, 208), OFF, OFF, (0.3,) * 4),
    "b3": ((156, 184, 212, 240), OFF, OFF, (0.3,) * 4),
    "s": ((171, 214, 257, 300), (5, 6.67, 8.33, 10), OFF, (0.2,) * 4),
    "m": ((192, 256, 320, 384), (5, 8.33, 11.67, 15), (0, 0.067, 0.133, 0.2), (0.3,) * 4),
    "l": LARGE,
    "xl": LARGE,
}


def ends(row: tuple[tuple[float, ...], ...], smallest: float | None = None) -> tuple[Stage, Stage]:
    """The first and the last stage of a row of the tables."""

    def at(place: int) -> Stage:
        size, magnitude, alpha, dropout = (values[place] for values in row)
        return Stage(
            image_size=int(size),
            dropout_rate=dropout,
            randaugment_magnitude=magnitude,
            mixup_alpha=alpha,
            cutmix_alpha=alpha,
        )

    first = at(0) if smallest is None else dataclasses.replace(at(0), image_size=int(smallest))
    return first, at(-1)


def assert_stages_match(stages: tuple[Stage, ...], row: tuple[tuple[float, ...], ...]) -> None:
    sizes, magnitudes, alphas, dropout = row
    assert [stage.image_size for stage in stages] == list(sizes)
    assert all(type(stage.image_size) is int for stage in stages)
    assert [stage.randaugment_magnitude for stage in stages] == pytest.approx(magnitudes, abs=5e-3)
    assert [stage.mixup_alpha for stage in stages] == pytest.approx(alphas, abs=5e-4)
    assert [stage.cutmix_alpha for stage in stages] == pytest.approx(alphas, abs=5e-4)
    assert [stage.dropout_rate for stage in stages] == pytest.approx(dropout, abs=5e-4)


@pytest.mark.parametrize("model", PAPER)
def test_linear_makes_the_papers_stages(model: str) -> None:
    first, last = ends(PAPER[model])
    assert_stages_match(linear(first=first, last=last), PAPER[model])


@pytest.mark.parametrize("model", CODE)
def test_released_code_makes_the_codes_stages(model: str) -> None:
    first, last = ends(CODE[model], smallest=128)
    assert_stages_match(released_code(first=first, last=last), CODE[model])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_schedules_end_at_their_last_values(count: int) -> None:
    first = Stage(image_size=128, dropout_rate=0.1, share=2.0, batch_size=64)
    last = Stage(image_size=300, dropout_rate=0.3, share=1.0, batch_size=64)
    paper = linear(count, first=first, last=last)
    code = released_code(count, first=dataclasses.replace(first, dropout_rate=0.3), last=last)
    assert len(paper) == len(code) == count
    assert paper[-1] == code[-1] == last
    assert all(stage.batch_size == 64 for stage in paper)


def test_every_value_of_a_stage_is_interpolated() -> None:
    # A field that is added to `Stage` is, too.
    at: dict[str, Any] = {name: index + 0.5 for index, name in enumerate(TRACED)}
    zeros: dict[str, Any] = dict.fromkeys(at, 0.0)
    first = Stage(image_size=32, share=1.0, **zeros)
    last = Stage(image_size=65, share=3.0, **{name: 2 * value for name, value in at.items()})
    first_found, middle, last_found = linear(3, first=first, last=last)
    assert (first_found, last_found) == (first, last)
    assert middle == Stage(image_size=48, share=2.0, **at)
    assert middle.traced() == at


def test_values_are_todays_to_the_last_bit() -> None:
    # What runs have been trained with is in their logs, and must come again.
    stages = linear(
        4,
        first=Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=5.0),
        last=Stage(image_size=300, dropout_rate=0.3, randaugment_magnitude=15.0),
    )
    assert [stage.dropout_rate for stage in stages] == [
        0.1,
        0.16666666666666669,
        0.23333333333333334,
        0.3,
    ]
    assert [stage.randaugment_magnitude for stage in stages] == [
        5.0,
        8.333333333333334,
        11.666666666666668,
        15.0,
    ]


@pytest.mark.parametrize("schedule", [linear, released_code])
def test_fields_that_cannot_be_interpolated_are_named(schedule: Any) -> None:
    first, last = Stage(image_size=32), Stage(image_size=64, stochastic_depth_rate=0.2)
    with pytest.raises(ValueError, match="stochastic_depth_rate is None in the first stage and 0"):
        schedule(4, first=first, last=last)
    with pytest.raises(
        ValueError, match=r"stochastic_depth_rate is 0\.2 in the first stage and No"
    ):
        schedule(4, first=last, last=first)
    with pytest.raises(ValueError, match="batch_size is 8 in the first stage and None in the last"):
        schedule(4, first=Stage(image_size=32, batch_size=8), last=first)


def test_released_code_takes_one_dropout() -> None:
    first, last = Stage(image_size=128, dropout_rate=0.1), Stage(image_size=300, dropout_rate=0.2)
    with pytest.raises(ValueError, match=r"dropout_rate is 0\.1 in the first stage and 0\.2 in"):
        released_code(4, first=first, last=last)


def test_what_one_stage_states_all_do() -> None:
    @dataclasses.dataclass
    class Own:
        stochastic_depth_rate: float = 0.3

    plain, stated = Stage(image_size=32), Stage(image_size=32, stochastic_depth_rate=0.0)
    assert "stochastic_depth_rate" not in plain.traced()
    assert uniform((plain, plain), Own()) == (plain, plain)
    filled = dataclasses.replace(plain, stochastic_depth_rate=0.3)
    assert uniform((plain, stated), Own()) == (filled, stated)
    with pytest.raises(ValueError, match=r"stages\[0\].stochastic_depth_rate must be stated"):
        uniform((plain, stated), object())


def test_imagenet_takes_the_published_steps_and_boundaries() -> None:
    stages = released_code(first=Stage(image_size=128), last=Stage(image_size=300))
    run = plan(stages, examples=350 * 1_256_144, batch_size=4096)
    assert run.total_steps == 107_336
    assert [planned.end_step for planned in run.stages] == [26_834, 53_668, 80_502, 107_336]


def test_stage_at_changes_exactly_at_the_boundaries() -> None:
    run = plan(
        linear(2, first=Stage(image_size=32), last=Stage(image_size=64)), examples=80, batch_size=8
    )
    assert [run.stage_at(step).index for step in (0, 4, 5, 9)] == [0, 0, 1, 1]
    assert run.stage_at(10).index == 1, "a finished run stays in its last stage"


def test_stage_with_its_own_batch_size_takes_its_share_of_the_examples() -> None:
    stages = (Stage(image_size=32, batch_size=16), Stage(image_size=64))
    run = plan(stages, examples=64, batch_size=8)
    assert [planned.batch_size for planned in run.stages] == [16, 8]
    assert [planned.end_step - planned.first_step for planned in run.stages] == [2, 4]
    assert [run.examples_before(step) for step in range(7)] == [0, 16, 32, 40, 48, 56, 64]


def test_what_one_stage_leaves_over_goes_to_the_next() -> None:
    stages = linear(3, first=Stage(image_size=32), last=Stage(image_size=64))
    run = plan(stages, examples=99, batch_size=10)
    assert [planned.end_step - planned.first_step for planned in run.stages] == [3, 3, 3]
    run = plan(stages, examples=105, batch_size=10)
    assert [planned.end_step for planned in run.stages] == [3, 7, 10]


@pytest.mark.parametrize(
    ("shares", "failing"), [((0.01, 1, 1), 0), ((1, 0.01, 1), 1), ((1, 1, 0.01), 2)]
)
def test_stage_without_a_step_is_named(shares: tuple[float, ...], failing: int) -> None:
    stages = [Stage(image_size=32, share=share) for share in shares]
    with pytest.raises(ValueError, match=rf"stages\[{failing}\].*one batch of 10"):
        plan(stages, examples=402, batch_size=10)


def test_no_stages_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        plan((), examples=100, batch_size=10)


@dataclasses.dataclass(frozen=True)
class Run:
    stages: list[Stage]
    examples: int
    batch_size: int

    def plan(self) -> Plan:
        return plan(self.stages, examples=self.examples, batch_size=self.batch_size)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Runs of 1 to 6 stages, all large enough for a step."""
    batch = st.integers(1, 64)
    stages = draw(
        st.lists(
            st.builds(
                Stage,
                image_size=st.integers(32, 512),
                share=st.floats(0.5, 4.0),
                batch_size=st.none() | batch,
            ),
            min_size=1,
            max_size=6,
        )
    )
    # The smallest share is 0.5 / 20.5 of the run; two of the largest batches fit in it.
    return Run(stages, examples=draw(st.integers(42 * 128, 10**7)), batch_size=draw(batch))


@given(runs())
def test_stages_are_contiguous(run: Run) -> None:
    stages = run.plan().stages
    step = example = 0
    for index, planned in enumerate(stages):
        assert (planned.index, planned.stage) == (index, run.stages[index])
        assert (planned.first_step, planned.first_example) == (step, example)
        assert planned.end_step > planned.first_step
        step = planned.end_step
        example += (planned.end_step - planned.first_step) * planned.batch_size


@given(runs())
def test_every_stage_ends_within_a_batch_of_its_share(run: Run) -> None:
    laid = run.plan()
    total_share = sum(stage.share for stage in run.stages)
    share = 0.0
    for planned in laid.stages:
        share += planned.stage.share
        missing = run.examples * share / total_share - laid.examples_before(planned.end_step)
        assert -1e-6 * planned.batch_size <= missing < planned.batch_size


@given(runs())
def test_run_trains_on_no_more_than_the_requested_examples(run: Run) -> None:
    laid = run.plan()
    trained = laid.examples_before(laid.total_steps)
    assert run.examples - laid.stages[-1].batch_size < trained <= run.examples


@given(runs(), st.data())
def test_examples_before_grows_by_the_batch_of_each_step(run: Run, data: st.DataObject) -> None:
    laid = run.plan()
    assert laid.examples_before(0) == 0
    step = data.draw(st.integers(0, laid.total_steps - 1))
    for at in (step, *(planned.end_step - 1 for planned in laid.stages)):
        grown = laid.examples_before(at + 1) - laid.examples_before(at)
        assert grown == laid.stage_at(at).batch_size


@given(runs(), st.integers(-20, 20))
def test_only_the_ratio_of_shares_counts(run: Run, exponent: int) -> None:
    factor = math.ldexp(1.0, exponent)  # powers of two scale without rounding
    scaled = [dataclasses.replace(stage, share=stage.share * factor) for stage in run.stages]
    before, after = run.plan(), dataclasses.replace(run, stages=scaled).plan()
    assert [p.end_step for p in before.stages] == [p.end_step for p in after.stages]


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 2**31))
def test_random_resizing_draws_whole_stages(count: int, sizes: int, seed: int) -> None:
    first = Stage(image_size=128, dropout_rate=0.1)
    last = Stage(image_size=380, dropout_rate=0.4, mixup_alpha=0.2)
    stages = random_resize(count, sizes=sizes, first=first, last=last, seed=seed)
    assert len(stages) == count
    # The regularisation follows the size.
    assert set(stages) <= set(linear(sizes, first=first, last=last))
    assert stages == random_resize(count, sizes=sizes, first=first, last=last, seed=seed)
    assert stages == random_resize(count + 1, sizes=sizes, first=first, last=last, seed=seed)[:-1]


def test_random_resizing_draws_what_it_drew() -> None:
    first, last = Stage(image_size=128), Stage(image_size=380)
    sizes = [stage.image_size for stage in random_resize(12, first=first, last=last, seed=2)]
    assert sizes == [380, 380, 128, 128, 380, 296, 296, 212, 296, 296, 296, 128]


def test_random_resizing_draws_evenly() -> None:
    stages = random_resize(4000, first=Stage(image_size=128), last=Stage(image_size=380))
    counts = Counter(stage.image_size for stage in stages)
    assert sorted(counts) == [128, 212, 296, 380]
    # Binomial: a deviation of 5 standard errors.
    assert all(abs(count - 1000) < 5 * (4000 * 3 / 16) ** 0.5 for count in counts.values())
    following = Counter(one == other for one, other in itertools.pairwise(stages))
    assert abs(following[True] - 1000) < 5 * (4000 * 3 / 16) ** 0.5
