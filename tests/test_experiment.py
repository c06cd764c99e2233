"""Configs: typed, checked, overridable from the command line, comparable."""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from effnetv2_jax.config import (
    AdamW,
    AugmentConfig,
    CheckpointConfig,
    ConfigError,
    Constant,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    Exponential,
    FaultsConfig,
    Lion,
    LogConfig,
    RMSProp,
    WarmupStableDecay,
)
from effnetv2_jax.config.differences import MAY_DIFFER, differences
from effnetv2_jax.config.optimizers import LAMB, SGD
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.preprocessing import cropped
from effnetv2_jax.progressive import Stage, linear

BASE = Experiment(
    model=EfficientNetConfig(),
    optimizer=RMSProp(learning_rate=0.016, momentum=0.9, epsilon=1e-3, l2=1e-5),
    schedule=Exponential(warmup_epochs=5.0, decay_rate=0.97, decay_epochs=2.4),
    stages=linear(
        4,
        first=Stage(image_size=96, dropout_rate=0.1),
        last=Stage(image_size=128, dropout_rate=0.3),
    ),
    batch_size=64,
)


def fields(experiment: Experiment) -> dict[str, Any]:
    """As a checkpoint keeps them: written to JSON and read back."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def changed(**values: Any) -> dict[str, Any]:
    """The base config as plain dicts with `group__field=value` set, whatever its type."""
    config = fields(BASE)
    for name, value in values.items():
        *groups, field = name.split("__")
        node = config
        for group in groups:
            node = node["stages"][int(group)] if group.isdigit() else node[group]
        node[field] = value
    return config


def overridden(*arguments: str, base: Experiment = BASE) -> Experiment:
    """The experiment that a program with these command-line arguments runs."""
    argv = ["program", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", to_config_dict(base), flag_values=values, sys_argv=argv
    )
    values(argv)
    return from_config_dict(values.config)


def test_round_trip_of_the_defaults() -> None:
    assert from_config_dict(to_config_dict(BASE)) == BASE


positive = st.floats(1e-3, 1e3)
share = st.floats(0, 0.99)
count = st.integers(1, 1000)


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Sensible experiments: optional fields set and unset, stages of every kind."""
    stage = st.builds(
        Stage,
        image_size=st.integers(32, 512),
        share=positive,
        dropout_rate=share,
        mixup_alpha=share,
        batch_size=st.none() | st.sampled_from([64, 128]),
    )
    row = st.builds(
        StageSpec,
        operator=st.just("mbconv"),
        kernel=st.sampled_from([3, 5]),
        stride=st.sampled_from([1, 2]),
        expand=st.integers(1, 6),
        outputs=count,
        repeats=st.integers(1, 9),
        se_ratio=share,
    )
    model = st.builds(
        EfficientNetConfig,
        stages=st.none() | st.lists(row, min_size=1, max_size=3).map(tuple),
        width=st.none() | positive,
        depth=st.none() | positive,
        bn_group=st.none() | st.sampled_from([8, 16]),
        dtype=st.sampled_from(["bfloat16", "float32"]),
    )
    data = st.builds(
        DataConfig,
        num_classes=st.none() | count,
        num_train_examples=st.none() | count,
        crop=st.sampled_from(["tensorflow", "torchvision", "none"]),
        crop_area=st.sampled_from([(0.05, 1.0), (0.25, 0.5)]),
        mean=st.tuples(positive, positive, positive),
        threads=st.none() | count,
    )
    return Experiment(
        stages=tuple(draw(st.lists(stage, min_size=1, max_size=3))),
        epochs=draw(positive),
        batch_size=64,
        seed=draw(st.integers(0, 2**31)),
        ema_decay=draw(st.none() | share),
        model=draw(model),
        data=draw(data),
        augment=AugmentConfig(mix_group=draw(st.none() | st.just(32)), flip=draw(st.booleans())),
        optimizer=draw(
            st.sampled_from([SGD, RMSProp, AdamW, LAMB, Lion]).flatmap(
                lambda kind: st.builds(
                    kind, learning_rate=positive, gradient_clip=st.none() | positive
                )
            )
        ),
        schedule=draw(
            st.builds(Constant, warmup_epochs=share)
            | st.builds(Cosine, warmup_epochs=share, final=share)
            | st.builds(Exponential, decay_rate=st.floats(0.1, 1), decay_epochs=positive)
            | st.builds(WarmupStableDecay, decay_epochs=st.just(1e-3))
        ),
        rates=draw(st.sampled_from([(), (("classifier", 10.0), ("stem|blocks_0", 0.0))])),
    )


@given(experiments())
def test_round_trip_through_config_dict_and_json(experiment: Experiment) -> None:
    assert from_config_dict(to_config_dict(experiment)) == experiment
    assert from_config_dict(fields(experiment)) == experiment


# Unknown, missing and ill-typed fields


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("batchsize", "batch_size"),
        ("model__witdh", "width"),
        ("data__num_clases", "num_classes"),
        ("schedule__warm_up_epochs", "warmup_epochs"),
        ("1__image_sise", "image_size"),
    ],
)
def test_unknown_field_is_an_error_that_names_the_closest(name: str, closest: str) -> None:
    config = changed(**{name: 1})
    *groups, field = name.split("__")
    where = {"": "config", "1": "config.stages[1]"}.get("".join(groups), f"config.{name[:4]}")
    with pytest.raises(ConfigError) as error:
        from_config_dict(config)
    assert str(error.value).startswith(where)
    assert f"no field {field!r}; did you mean {closest!r}?" in str(error.value)


def test_unknown_field_of_a_config_dict_is_an_error() -> None:
    config = to_config_dict(BASE)
    with config.unlocked():
        config.model.witdh = 2.0
    with pytest.raises(ConfigError, match=r"config\.model has no field 'witdh'"):
        from_config_dict(config)


def test_unknown_field_that_resembles_none_lists_them_all() -> None:
    with pytest.raises(
        ConfigError, match="its fields are every_steps, parameters, report, tensorboard"
    ):
        from_config_dict(changed(log__qqq=1))


def test_missing_field_without_default_is_an_error() -> None:
    with pytest.raises(ConfigError, match="config lacks the field 'model'"):
        from_config_dict({})
    with pytest.raises(ConfigError, match=r"config\.stages\[0\] lacks the field 'image_size'"):
        from_config_dict(changed(stages=[{"share": 1.0}]))
    with pytest.raises(ConfigError, match=r"config\.optimizer lacks the field 'learning_rate'"):
        from_config_dict(changed(optimizer={"name": "sgd"}))
    with pytest.raises(ConfigError, match=r"config\.model\.name must be stated"):
        from_config_dict(changed(model={"width": 1.0}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 64.0}, "config.batch_size must be int, not 64.0"),
        ({"batch_size": True}, "config.batch_size must be int, not True"),
        ({"epochs": "3"}, "config.epochs must be float, not '3'"),
        ({"epochs": None}, "config.epochs must be float, not None"),
        ({"epochs": True}, "config.epochs must be float, not True"),
        ({"model": 3}, "config.model must hold the fields of ModelConfig, not 3"),
        ({"model__width": "wide"}, "config.model.width must be float, not 'wide'"),
        ({"augment__flip": 1}, "config.augment.flip must be bool, not 1"),
        ({"data__crop_area": 0.5}, "config.data.crop_area must be a tuple, not 0.5"),
        (
            {"data__mean": (1.0, 2.0)},
            "config.data.mean is (1.0, 2.0), and model.input_channels 3: it must have as many",
        ),
        ({"data__std": (1.0, "a", 1.0)}, "config.data.std[1] must be float, not 'a'"),
        ({"1__image_size": 96.5}, "config.stages[1].image_size must be int, not 96.5"),
        ({"stages": 4}, "config.stages must be a tuple, not 4"),
        ({"stages": (4,)}, "config.stages[0] must hold the fields of Stage, not 4"),
        (
            {"model__dtype": "float16"},
            "config.model.dtype must be one of ('bfloat16', 'float32', 'float64'), not 'float16'",
        ),
    ],
)
def test_wrong_type_is_an_error_that_names_the_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_config_dict(changed(**values))


def test_whole_numbers_become_floats() -> None:
    experiment = from_config_dict(changed(epochs=3, model__width=1, data__mean=(1, 2, 3)))
    assert isinstance(experiment.model, EfficientNetConfig)
    assert (experiment.epochs, experiment.model.width) == (3.0, 1.0)
    assert experiment.data.mean == (1.0, 2.0, 3.0)
    assert type(experiment.epochs) is type(experiment.model.width) is float


# Values of the right type that make no sense


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": ()}, "stages must hold at least one stage"),
        ({"1__image_size": 31}, "stages[1].image_size is 31; 32 is the least"),
        ({"1__share": 0.0}, "stages[1].share must be above 0"),
        ({"1__dropout_rate": 1.0}, "stages[1].dropout_rate must be in [0, 1)"),
        ({"1__mixup_alpha": -0.1}, "stages[1].mixup_alpha must not be negative"),
        ({"1__batch_size": 0}, "stages[1].batch_size must be above 0"),
        ({"evaluation__image_size": 31}, "evaluation.image_size is 31; 32 is the least"),
        ({"model__bn_group": 48}, "model.bn_group is 48; it must divide stages[0]'s batch of 64"),
        ({"model__bn_group": 0}, "model.bn_group is 0"),
        ({"augment__mix_group": 48}, "augment.mix_group is 48; it must divide stages[0]'s batch"),
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"seed": -1}, "seed must not be negative"),
        ({"ema_decay": 1.0}, "ema_decay must be in [0, 1) or None"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in [0, 1)"),
        ({"model__width": 0.0}, "model.width must be above 0"),
        ({"data__source": "tfds"}, "data.name must name a TFDS set"),
        ({"data__source": "folder"}, "data.path must name a folder"),
        ({"data__crop_area": (0.5, 0.1)}, "data.crop_area must be a rising pair"),
        ({"data__crop_area": (0.5, 1.1)}, "data.crop_area must not exceed 1"),
        ({"data__std": (1.0, 0.0, 1.0)}, "data.std must be above 0"),
        ({"optimizer__learning_rate": -1.0}, "optimizer.learning_rate must not be negative"),
        ({"optimizer__momentum": 1.0}, "optimizer.momentum must be in [0, 1)"),
        ({"optimizer__gradient_clip": 0.0}, "optimizer.gradient_clip must be above 0 or None"),
        ({"optimizer__weight_decay": 0.1}, "optimizer has no field 'weight_decay'"),
        ({"optimizer__name": "adam"}, "optimizer.name must be one of ('sgd', 'rmsprop', 'adamw'"),
        ({"schedule__name": "linear"}, "schedule.name must be one of ('constant', 'cosine'"),
        ({"rates": (("classifier", -1.0),)}, "rates[0] must have a factor of 0 or more"),
        ({"rates": (("(", 1.0),)}, "rates[0] has '(', no regular expression"),
        ({"model__stages": ()}, "model.stages must hold at least one stage"),
        ({"schedule__decay_epochs": 0.0}, "schedule.decay_epochs must be above 0"),
        ({"checkpoint__every_steps": 0}, "checkpoint.every_steps must be above 0"),
        ({"log__every_steps": 0}, "log.every_steps must be above 0"),
        ({"augment__randaugment_layers": 0}, "augment.randaugment_layers must be above 0"),
    ],
)
def test_value_out_of_range_is_an_error_that_names_the_field(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"config.{message}")):
        from_config_dict(changed(**values))


def test_group_must_divide_every_stages_batch() -> None:
    config = changed(**{"model__bn_group": 16, "1__batch_size": 24})
    with pytest.raises(ConfigError, match=re.escape("must divide stages[1]'s batch of 24")):
        from_config_dict(config)


def test_plan_names_a_stage_without_steps() -> None:
    with pytest.raises(ConfigError, match=r"stages\[0\].*less than one batch of 64"):
        dataclasses.replace(BASE, epochs=1.0).plan(100)


def test_plan_counts_epochs_of_the_training_examples() -> None:
    plan = dataclasses.replace(BASE, epochs=2.0).plan(64 * 10)
    assert [planned.end_step for planned in plan.stages] == [5, 10, 15, 20]


# Command line


@pytest.mark.parametrize(
    ("argument", "get", "expected"),
    [
        ("--config.stages[0].image_size=64", lambda e: e.stages[0].image_size, 64),
        ("--config.stages[1].batch_size=128", lambda e: e.stages[1].batch_size, 128),
        ("--config.model.width=0.5", lambda e: e.model.width, 0.5),
        ("--config.model.width=1", lambda e: e.model.width, 1.0),
        ("--config.model.bn_group=32", lambda e: e.model.bn_group, 32),
        ("--config.data.num_train_examples=2000", lambda e: e.data.num_train_examples, 2000),
        ("--config.data.crop_area=(0.2,0.5)", lambda e: e.data.crop_area, (0.2, 0.5)),
        ("--config.data.mean=1,2,3", lambda e: e.data.mean, (1.0, 2.0, 3.0)),
        ("--config.epochs=2", lambda e: e.epochs, 2.0),
        ("--config.epochs=0.5", lambda e: e.epochs, 0.5),
        ("--config.ema_decay=0.99", lambda e: e.ema_decay, 0.99),
        ("--config.augment.flip=false", lambda e: e.augment.flip, False),
        ("--noconfig.augment.flip", lambda e: e.augment.flip, False),
        ("--config.data.source=embedded", lambda e: e.data.source, "embedded"),
    ],
)
def test_command_line_overrides_a_field(
    argument: str, get: Callable[[Experiment], Any], expected: Any
) -> None:
    value = get(overridden(argument))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ema_decay", 0.9),
        ("data.num_train_examples", 7),
        ("model.width", 0.5),
        ("stages[1].batch_size", 128),
    ],
)
def test_optional_field_takes_a_value_and_none_in_turn(name: str, value: float) -> None:
    config = to_config_dict(BASE)
    for setting in (value, None, value):
        config_path.set_value(name, config, setting)
        assert config_path.get_value(name, config) == setting
        from_config_dict(config)


def test_command_line_refuses_a_misspelt_field() -> None:
    with pytest.raises(AttributeError, match='Did you mean "width"'):
        overridden("--config.model.witdh=2")


# Differences


def test_config_does_not_differ_from_itself() -> None:
    assert differences(fields(BASE), fields(BASE)) == []
    assert differences(dataclasses.asdict(BASE), fields(BASE)) == [], "tuples against JSON's lists"


def test_differences_name_the_field_and_both_values() -> None:
    other = dataclasses.replace(
        BASE,
        seed=1,
        model=EfficientNetConfig(width=0.5),
        stages=(dataclasses.replace(BASE.stages[0], image_size=64), *BASE.stages[1:]),
    )
    assert differences(fields(BASE), fields(other)) == [
        "model.width: None -> 0.5",
        "seed: 0 -> 1",
        "stages[0].image_size: 96 -> 64",
    ]


def test_differences_show_a_missing_stage() -> None:
    shorter = dataclasses.replace(BASE, stages=BASE.stages[:-1])
    assert "stages[3].image_size: 128 -> 'absent'" in differences(fields(BASE), fields(shorter))


def test_what_may_differ_does_not_count() -> None:
    other = dataclasses.replace(
        BASE,
        data=DataConfig(path="/elsewhere", threads=3, prefetch_batches=9, max_unreadable=1),
        evaluation=EvaluationConfig(batch_size=8, every_epochs=1.0),
        checkpoint=CheckpointConfig(every_steps=5, keep_last=1, keep_best=0),
        log=LogConfig(every_steps=5, tensorboard=False),
    )
    assert differences(fields(BASE), fields(other)) == []


def test_what_trains_does_count() -> None:
    other = dataclasses.replace(
        BASE,
        data=DataConfig(path="/elsewhere", crop="none"),
        schedule=Cosine(warmup_epochs=5.0),
    )
    names = [line.split(":")[0] for line in differences(fields(BASE), fields(other))]
    assert names == [
        "data.crop",
        "schedule.decay_epochs",
        "schedule.decay_rate",
        "schedule.final",
        "schedule.name",
    ]


def test_free_fields_may_differ_within() -> None:
    sets = EvaluationConfig(sets=("imagenet_v2",))
    other = dataclasses.replace(BASE, evaluation=sets, faults=FaultsConfig(on_divergence="skip"))
    assert not differences(fields(BASE), fields(other))


@pytest.mark.parametrize("name", MAY_DIFFER)
def test_may_differ_names_fields_that_exist(name: str) -> None:
    node: Any = dataclasses.asdict(BASE)
    for part in name.split("."):
        node = node[part]


@pytest.mark.parametrize(
    ("resize", "size", "padding"),
    [
        ("auto", None, 7),
        ("auto", 319, 32),
        ("auto", 320, None),
        ("crop", 384, 32),
        ("squash", 224, None),
    ],
)
def test_evaluation_squashes_from_320_pixels_up_unless_said_otherwise(
    resize: Any, size: int | None, padding: int | None
) -> None:
    own = dataclasses.replace(cropped(300), crop_padding=7)
    evaluation = EvaluationConfig(image_size=size, resize=resize)
    found = dataclasses.replace(BASE, evaluation=evaluation).preprocessing(own)
    assert (found.image_size, found.crop_padding) == (size or 300, padding)


def test_preprocessing_is_the_weights_own_where_the_config_leaves_it_open() -> None:
    own = dataclasses.replace(cropped(300), antialias=True)
    open_config = dataclasses.replace(BASE, data=DataConfig(), evaluation=EvaluationConfig())
    assert open_config.preprocessing(own) == own
    data = DataConfig(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), interpolation="bilinear")
    found = dataclasses.replace(open_config, data=data).preprocessing(own)
    assert (found.mean, found.std) == (data.mean, data.std)
    assert (found.interpolation, found.antialias) == ("bilinear", False)
    # A run that continues finds what it settled on before.
    again = dataclasses.replace(open_config, data=data).preprocessing(found)
    assert again == found


@pytest.mark.parametrize("name", ["mean", "std", "interpolation"])
def test_optional_fields_of_any_type_take_values_and_none(name: str) -> None:
    values: dict[str, Any] = {
        "mean": (1.0, 2.0, 3.0),
        "std": (1.0, 2.0, 3.0),
        "interpolation": "bicubic",
    }
    config = to_config_dict(dataclasses.replace(BASE, data=DataConfig()))
    for value in (values[name], None):
        config.data[name] = value
        assert getattr(from_config_dict(config).data, name) == value
