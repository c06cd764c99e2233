"""What a search chooses among, and when two candidates are the same."""

import dataclasses

import numpy as np
import pytest
import searches
import tiny
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import VARIANTS, StageSpec
from effnetv2_jax.nas.architecture import canonical, network_hash
from effnetv2_jax.nas.candidate import candidate_hash, with_settings
from effnetv2_jax.nas.space import choice, neighbours, paper_space, sample, settings, size

SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(sorted(VARIANTS))
ROWS = st.builds(
    StageSpec,
    operator=st.sampled_from(["fused", "mbconv", "edge"]),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    expand=st.sampled_from([1, 4, 6]),
    outputs=st.integers(1, 40).map(lambda eights: 8 * eights),
    repeats=st.integers(1, 5),
    se_ratio=st.sampled_from([0.0, 0.25]),
)
NETWORKS = st.builds(
    EfficientNetConfig,
    name=NAMES,
    stages=st.none() | st.lists(ROWS, min_size=1, max_size=3).map(tuple),
    width=st.none() | st.sampled_from([0.5, 1.0, 1.4]),
    depth=st.none() | st.sampled_from([0.5, 1.0, 2.2]),
)


@given(NETWORKS)
def test_the_canonical_form_is_one(model: EfficientNetConfig) -> None:
    form = canonical(model)
    assert canonical(form) == form
    assert network_hash(form) == network_hash(model)


@given(NETWORKS)
def test_a_hash_knows_no_name_and_no_way_of_writing(model: EfficientNetConfig) -> None:
    assert network_hash(model.written_out()) == network_hash(model)
    form = canonical(model)
    assert network_hash(dataclasses.replace(form, name="efficientnetv2-l")) == network_hash(model)


@given(NETWORKS, st.data())
def test_any_difference_that_is_built_makes_another_hash(
    model: EfficientNetConfig, data: st.DataObject
) -> None:
    form = canonical(model)
    assert form.stages
    at = data.draw(st.integers(0, len(form.stages) - 1))
    row = form.stages[at]
    changes = {"kernel": row.kernel + 2, "repeats": row.repeats + 1, "expand": row.expand + 1}
    field = data.draw(st.sampled_from(sorted(changes)))
    other = dataclasses.replace(row, **{field: changes[field]})  # type: ignore[arg-type]
    stages = (*form.stages[:at], other, *form.stages[at + 1 :])
    assert network_hash(dataclasses.replace(form, stages=stages)) != network_hash(model)


def test_what_a_fused_block_cannot_squeeze_is_no_difference() -> None:
    row = StageSpec("fused", 3, 1, 1, 16, 2)
    one, other = (
        dataclasses.replace(tiny.MODEL, stages=(dataclasses.replace(row, se_ratio=ratio),))
        for ratio in (0.0, 0.25)
    )
    assert network_hash(one) == network_hash(other)
    wider = dataclasses.replace(row, expand=4, se_ratio=0.25)
    assert network_hash(dataclasses.replace(one, stages=(wider,))) != network_hash(one)


@given_settings(max_examples=20)
@given(SEEDS)
def test_every_sample_is_a_candidate(seed: int) -> None:
    space = searches.SPACE
    picks = sample(space, np.random.default_rng(seed))
    candidate = with_settings(tiny.experiment(), settings(space, picks))
    stages = candidate.model.stages  # type: ignore[attr-defined]
    for index, row in enumerate(stages):
        assert row.operator == picks[f"model.stages[{index}].operator"]
        assert row.kernel == picks[f"model.stages[{index}].kernel"]
        assert row.se_ratio == (0.25 if row.operator == "mbconv" else 0.0)
        assert row.outputs == tiny.MODEL.stages[index].outputs  # type: ignore[index]


@given_settings(max_examples=5)
@given(SEEDS)
def test_neighbours_differ_in_one_choice_and_in_what_is_built(seed: int) -> None:
    space = searches.SPACE
    picks = sample(space, np.random.default_rng(seed))
    found = list(neighbours(space, picks))
    assert len(found) == sum(len(each.values) - 1 for each in space)
    own = candidate_hash(with_settings(tiny.experiment(), settings(space, picks)))
    for other in found:
        assert sum(other[name] != picks[name] for name in picks) == 1
        assert candidate_hash(with_settings(tiny.experiment(), settings(space, other))) != own


def test_fields_that_train_nothing_else_do_not_count() -> None:
    one = tiny.experiment()
    data = dataclasses.replace(one.data, threads=7)
    assert candidate_hash(dataclasses.replace(one, data=data)) == candidate_hash(one)
    assert candidate_hash(dataclasses.replace(one, seed=1)) != candidate_hash(one)


def test_the_space_of_the_paper() -> None:
    space = paper_space(EfficientNetConfig(name="efficientnetv2-s"))
    assert len(space) == 6 * 4
    assert size(space) == (2 * 2 * 3 * 3) ** 6
    assert space[3] == choice("model.stages[0].repeats", 1, 2, 3)
    assert space[-1] == choice("model.stages[5].repeats", 8, 15, 23)


def test_optional_choices() -> None:
    model = EfficientNetConfig(name="efficientnetv2-b0")
    space = paper_space(model, se_ratios=(0.0, 0.25), widths=(1.0, 1.2))
    names = [each.name for each in space]
    assert names[0] == "model.width"
    assert "model.stages[5].se_ratio" in names
    picks = {each.name: each.labels[-1] for each in space}
    wide = with_settings(tiny.experiment(model=model), settings(space, picks))
    assert [row.outputs for row in canonical(wide.model).stages] == [  # type: ignore[attr-defined]
        16, 40, 56, 112, 136, 232,
    ]  # fmt: skip


def test_any_field_can_be_chosen() -> None:
    run = with_settings(
        tiny.experiment(),
        {"optimizer.learning_rate": 1, "stages[1].image_size": 64, "ema_decay": None},
    )
    assert (run.optimizer.learning_rate, run.stages[1].image_size) == (1.0, 64)
    assert run.ema_decay is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.learning_rat", 1.0, "did you mean 'learning_rate'"),
        ("stages[7].image_size", 64, r"config.stages has 2 entries, and so no \[7\]"),
        ("epochs.x", 1, "config.epochs has no field 'x'"),
        ("model.stages[0].kernel", 0, r"config.model.stages\[0\].kernel must be above 0"),
        ("batch_size", "many", "config.batch_size must be int"),
    ],
)
def test_what_cannot_be_chosen(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(tiny.experiment(), {field: value})


def test_choices_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="has a value twice"):
        choice("epochs", 1.0, 1.0)
    with pytest.raises(ConfigError, match="needs 2 entries in each value"):
        choice(("epochs", "seed"), (1.0, 2), (1.0,))
    with pytest.raises(ConfigError, match="needs fields and values"):
        choice("epochs")
