"""The paper's recipes in numbers: steps, learning rates, sizes, classes and what decays."""

import math

import jax
import pytest
from config_files import load

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import SGD, RMSProp
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.registry import create_model, family_of
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.schedule import learning_rate


def network(experiment: Experiment) -> EfficientNetConfig:
    assert isinstance(experiment.model, EfficientNetConfig)
    return experiment.model


def rates(experiment: Experiment, *epochs: float) -> list[float]:
    """The learning rate of the first step at or after each epoch, the last one at the end."""
    examples = experiment.data.num_train_examples
    assert examples is not None
    plan = experiment.plan(examples)
    steps = [
        min(math.ceil(epoch * examples / experiment.batch_size), plan.total_steps - 1)
        for epoch in epochs
    ]
    return [learning_rate(experiment, plan, step, num_examples=examples) for step in steps]


IMAGENET = [
    *(("imagenet_s", which) for which in ("paper", "code")),
    *(("imagenet_m", which) for which in ("paper", "code", "random-resize")),
    *(("imagenet_l", which) for which in ("paper", "code")),
    *(("imagenet_b", f"b{i},{which}") for i in range(4) for which in ("paper", "code")),
    *(("imagenet_v1", f"b{i},{which}") for i in range(8) for which in ("constant", "progressive")),
]


@pytest.mark.parametrize(("name", "argument"), IMAGENET)
def test_imagenet_from_scratch(name: str, argument: str) -> None:
    experiment = load(name, argument)
    assert experiment.plan(1_256_144).total_steps == 107_336
    assert experiment.data.num_classes == 1000
    assert (experiment.loss, experiment.label_smoothing, experiment.data.max_labels) == (
        "softmax",
        0.1,
        1,
    )
    assert experiment.ema_decay == 0.9999
    assert experiment.optimizer.gradient_clip is None
    assert rates(experiment, 0, 5, 175, 350) == pytest.approx(
        [0, 0.256 * 0.97**2, 0.256 * 0.97**72, 0.256 * 0.97**145]
    )
    assert network(experiment).stochastic_depth_rate == 0.2


def column(experiment: Experiment, field: str) -> list[float]:
    return [getattr(stage, field) for stage in experiment.stages]


@pytest.mark.parametrize(
    ("name", "argument", "sizes", "magnitudes", "mixup", "cutmix", "dropout"),
    [
        ("imagenet_s", "paper", [128, 185, 242, 300], [5, 25 / 3, 35 / 3, 15], 0, 0, (0.1, 0.3)),
        ("imagenet_s", "code", [171, 214, 257, 300], [5, 20 / 3, 25 / 3, 10], 0, 0, (0.2, 0.2)),
        ("imagenet_m", "paper", [128, 212, 296, 380], [5, 10, 15, 20], 0.2, 0, (0.1, 0.4)),
        ("imagenet_m", "code", [192, 256, 320, 384], [5, 25 / 3, 35 / 3, 15], 0.2, 0.2, (0.3, 0.3)),
        ("imagenet_l", "paper", [128, 212, 296, 380], [5, 35 / 3, 55 / 3, 25], 0.5, 0, (0.1, 0.5)),
        ("imagenet_l", "code", [192, 256, 320, 384], [5, 10, 15, 20], 0.5, 0.5, (0.4, 0.4)),
        ("imagenet_b", "b0,code", [144, 160, 176, 192], [0] * 4, 0, 0, (0.2, 0.2)),
        ("imagenet_b", "b1,code", [144, 160, 176, 192], [0] * 4, 0, 0, (0.2, 0.2)),
        ("imagenet_b", "b2,code", [148, 168, 188, 208], [0] * 4, 0, 0, (0.3, 0.3)),
        ("imagenet_b", "b3,code", [156, 184, 212, 240], [0] * 4, 0, 0, (0.3, 0.3)),
    ],
)
def test_progressive_stages(
    name: str,
    argument: str,
    sizes: list[int],
    magnitudes: list[float],
    mixup: float,
    cutmix: float,
    dropout: tuple[float, float],
) -> None:
    experiment = load(name, argument)
    assert column(experiment, "image_size") == sizes
    assert column(experiment, "randaugment_magnitude") == pytest.approx(magnitudes)
    assert column(experiment, "mixup_alpha") == pytest.approx([i * mixup / 3 for i in range(4)])
    assert column(experiment, "cutmix_alpha") == pytest.approx([i * cutmix / 3 for i in range(4)])
    low, high = dropout
    assert column(experiment, "dropout_rate") == pytest.approx(
        [low + i * (high - low) / 3 for i in range(4)]
    )
    assert [stage.end_step for stage in experiment.plan(1_256_144).stages] == [
        26_834,
        53_668,
        80_502,
        107_336,
    ]
    assert network(experiment).bn_momentum == (0.99 if "paper" in argument else 0.9)


@pytest.mark.parametrize(
    ("name", "argument", "size", "dropout", "eval_size"),
    [
        ("imagenet_b", "b0,paper", 192, 0.2, 224),
        ("imagenet_b", "b1,paper", 192, 0.2, 240),
        ("imagenet_b", "b2,paper", 208, 0.3, 260),
        ("imagenet_b", "b3,paper", 240, 0.3, 300),
        ("imagenet_v1", "b0", 176, 0.2, 224),
        ("imagenet_v1", "b3", 240, 0.3, 300),
        ("imagenet_v1", "b4", 304, 0.4, 380),
        ("imagenet_v1", "b7", 480, 0.5, 600),
    ],
)
def test_models_trained_at_one_size(
    name: str, argument: str, size: int, dropout: float, eval_size: int
) -> None:
    experiment = load(name, argument)
    assert experiment.stages == (Stage(image_size=size, dropout_rate=dropout),)
    assert experiment.augment.policy == "autoaugment"
    data, evaluation = experiment.data, experiment.evaluation
    assert (data.crop, data.crop_area, data.interpolation) == (
        "efficientnet",
        (0.08, 1.0),
        "bicubic",
    )
    assert data.mean == pytest.approx((123.675, 116.28, 103.53))
    assert data.std == pytest.approx((58.395, 57.12, 57.375))
    assert (evaluation.image_size, evaluation.resize) == (eval_size, "crop")


@pytest.mark.parametrize(("model", "size"), [("s", 384), ("m", 480), ("l", 480), ("xl", 512)])
@pytest.mark.parametrize("origin", ["paper", "code"])
def test_imagenet21k_and_fine_tuning_from_it(model: str, size: int, origin: str) -> None:
    experiment = load("imagenet21k", f"{model},{origin},sigmoid")
    assert experiment.plan(12_720_275).total_steps == 186_332
    assert experiment.data.num_classes == (21_841 if origin == "paper" else 21_843)
    assert experiment.data.max_labels > 1
    assert experiment.loss == "sigmoid"
    assert load("imagenet21k", f"{model},{origin}").loss == "softmax"
    assert experiment.label_smoothing == 0
    assert experiment.stages == (Stage(image_size=224),)
    assert network(experiment).stochastic_depth_rate == 0
    assert experiment.augment.policy == "none"
    half = 0.128 * 0.5 * (1 + math.cos(math.pi * 29 / 59))
    assert rates(experiment, 0, 1, 30, 60) == pytest.approx([0, 0.128, half, 0], abs=2e-6)

    tuned = load("imagenet_ft", f"{model},{origin}")
    assert tuned.plan(1_256_144).total_steps == 36_801
    _check_fine_tuning(tuned, origin, size=size, epochs=15)
    assert tuned.init == "in21k"


@pytest.mark.parametrize(
    ("name", "examples", "classes"),
    [
        ("cifar10", 50_000, 10),
        ("cifar100", 50_000, 100),
        ("flowers", 2040, 102),
        ("cars", 8144, 196),
    ],
)
@pytest.mark.parametrize("origin", ["paper", "code"])
def test_transfer(name: str, examples: int, classes: int, origin: str) -> None:
    sizes = {"s": 384, "m": 480, "l": 480, "xl": 512, "b0": 224, "b1": 240, "b2": 260, "b3": 288}
    for model, size in sizes.items():
        experiment = load("transfer", f"{name},{model},{origin}")
        assert experiment.model.name == f"efficientnetv2-{model}"
        assert experiment.plan(examples).total_steps == 10_000
        assert experiment.data.num_classes == classes
        assert experiment.init == ("in21k-ft1k" if model == "xl" else "in1k")
        _check_fine_tuning(experiment, origin, size=size, epochs=512e4 / examples)


def _check_fine_tuning(experiment: Experiment, origin: str, *, size: int, epochs: float) -> None:
    assert experiment.batch_size == 512
    assert experiment.epochs == pytest.approx(epochs)
    assert experiment.stages == (Stage(image_size=size),)
    assert experiment.evaluation.image_size == size
    assert (experiment.augment.policy, experiment.augment.cutout) == ("none", 0.5)
    assert experiment.data.mean == experiment.data.std == (127.5,) * 3
    assert (experiment.data.crop, experiment.ema_decay) == ("none", 0.9996)
    assert network(experiment).stochastic_depth_rate == 0.2
    assert isinstance(experiment.optimizer, RMSProp | SGD)
    assert experiment.optimizer.l2 == (0 if origin == "paper" else 1e-5)
    start, warm, half, end = rates(experiment, 0, 1, epochs / 2, epochs)
    assert (start, warm) == pytest.approx((0, 0.001), rel=1e-4)
    if origin == "paper":
        progress = (epochs / 2 - 1) / (epochs - 1)
        assert half == pytest.approx(0.0005 * (1 + math.cos(math.pi * progress)), rel=0.01)
        assert end < 1e-7
    else:
        assert (half, end) == pytest.approx((0.001, 0.001))


def test_the_penalty_is_over_kernels_only() -> None:
    params = abstract_variables(create_model("efficientnetv2-s"))["params"]
    decays_at = family_of("efficientnetv2-s").decays
    paths, leaves = zip(*jax.tree.leaves_with_path(params))
    decays = [decays_at(tuple(key.key for key in path)) for path in paths]
    assert [leaf.ndim > 1 for leaf in leaves] == decays
    # Neither BatchNorm's scales and shifts, as many as its moving statistics, nor biases: of the
    # classifier and, per MBConv, of squeeze-and-excitation's two layers.
    batch_norm = 21_612_360 - 21_458_488
    biases = 1000 + sum(
        width // 4 + expand * width
        for first, last, repeats, inner in ((64, 128, 6, 4), (128, 160, 9, 6), (160, 256, 15, 6))
        for width, expand in [(first, inner), *[(last, inner)] * (repeats - 1)]
    )
    decaying = sum(leaf.size for leaf, decay in zip(leaves, decays) if decay)
    assert decaying == 21_458_488 - batch_norm - biases


def test_a_progressive_resnet_ends_at_the_papers_size() -> None:
    for model, size in (("50", 224), ("50", 380), ("152", 380)):
        constant = load("imagenet_resnet", f"{model},{size}")
        progressive = load("imagenet_resnet", f"{model},{size},progressive")
        assert progressive.plan(1_256_144).total_steps == constant.plan(1_256_144).total_steps
        sizes = [stage.image_size for stage in progressive.stages]
        assert (len(sizes), sizes[0], sizes[-1]) == (4, 128, size)
        assert constant.stages == progressive.stages[-1:]
        assert progressive.evaluation.image_size == size


def test_resnet_rs_learns_at_a_tenth_for_256_examples() -> None:
    experiment = load("imagenet_resnet_rs", "420")
    assert experiment.plan(1_256_144).total_steps == 107_336
    assert rates(experiment, 0, 5, 177.5, 350) == pytest.approx([0, 1.6, 0.8, 0], abs=1e-3)
    assert experiment.optimizer == SGD(learning_rate=0.1, momentum=0.9, l2=4e-5)
    (stage,) = experiment.stages
    assert (stage.image_size, stage.randaugment_magnitude, stage.dropout_rate) == (320, 15, 0.4)


def test_deit_learns_at_1e_3_for_1024_examples() -> None:
    experiment = load("imagenet_vit", "deit-b")
    assert experiment.plan(1_256_144).total_steps == 300 * 1_256_144 // 1024
    assert rates(experiment, 0, 5, 300) == pytest.approx([1e-6, 1e-3, 1e-5], rel=1e-4)
    assert (experiment.data.repeats, experiment.augment.erasing) == (3, 0.25)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown argument 'xs'; known: cifar10, cifar100"):
        load("transfer", "xs")
    with pytest.raises(ValueError, match="has s and m; choose one"):
        load("transfer", "s,m")
    assert load("transfer", "code,m") == load("transfer", "m,code")
    assert load("transfer") == load("transfer", "cifar10,s,paper")
