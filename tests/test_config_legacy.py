"""Configs of runs that earlier versions wrote say the same in the words of this one."""

import re
from typing import Any

import numpy as np
import pytest

from effnetv2_jax.config import AdamW, Cosine, RMSProp
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.legacy import upgrade
from effnetv2_jax.config.reading import from_config_dict
from effnetv2_jax.train.rates import check_rates, factors, trained_params

PARAMS = {
    "stem": {"conv": {"kernel": np.zeros((3, 3))}, "norm": {"bias": np.zeros(3)}},
    "head": {"conv": {"kernel": np.zeros((3, 3))}},
    "classifier": {"kernel": np.zeros((3, 6)), "bias": np.zeros(6)},
}


def earlier(*, trainable: str = ".*", **optimizer: Any) -> dict[str, Any]:
    """As far as a config of then differs from one of now; the rest has its defaults."""
    common = {"decay": 0.9, "momentum": 0.9, "epsilon": 1e-3, "l2": 1e-5, "weight_decay": 0.0}
    rate = {"learning_rate": 0.01, "classifier_learning_rate": None, "gradient_clip": None}
    return {
        "model": {"name": "efficientnetv2-b0", "width": 0.5, "depth": None, "remat": "none"},
        "optimizer": {"name": "rmsprop"} | common | rate | optimizer,
        "schedule": {
            "name": "cosine",
            "warmup_epochs": 1.0,
            "decay_rate": 0.97,
            "decay_epochs": 2.4,
        },
        "stages": [{"image_size": 48, "dropout_rate": 0.1}],
        "trainable": trainable,
    }


def test_each_optimizer_keeps_what_it_read() -> None:
    run = from_config_dict(upgrade(earlier()))
    assert run.optimizer == RMSProp(
        learning_rate=0.01, decay=0.9, momentum=0.9, epsilon=1e-3, l2=1e-5
    )
    assert run.schedule == Cosine(warmup_epochs=1.0)
    assert run.rates == ()
    adamw = earlier(name="adamw", decay=0.99, epsilon=1e-8, l2=0.0, weight_decay=0.05)
    assert from_config_dict(upgrade(adamw)).optimizer == AdamW(
        learning_rate=0.01, beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.05
    )


def test_what_this_version_cannot_express_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config\.optimizer has no field 'l2'"):
        from_config_dict(upgrade(earlier(name="adamw")))


@pytest.mark.parametrize("trainable", [".*", "classifier", "^(head|classifier)/", "kernel$"])
@pytest.mark.parametrize("of_classifier", [None, 0.1])
def test_the_same_parameters_are_trained_at_the_same_rates(
    trainable: str, of_classifier: float | None
) -> None:
    config = earlier(trainable=trainable, classifier_learning_rate=of_classifier)
    rates = from_config_dict(upgrade(config)).rates
    check_rates(PARAMS, rates)

    def expected(path: str) -> float:
        if not re.search(trainable, path):
            return 0.0
        return 10.0 if of_classifier and path.startswith("classifier/") else 1.0

    found = factors(PARAMS, rates)
    assert found == {
        "stem": {
            "conv": {"kernel": expected("stem/conv/kernel")},
            "norm": {"bias": expected("stem/norm/bias")},
        },
        "head": {"conv": {"kernel": expected("head/conv/kernel")}},
        "classifier": {
            "kernel": expected("classifier/kernel"),
            "bias": expected("classifier/bias"),
        },
    }
    assert trained_params(PARAMS, rates)


def test_configs_of_this_version_stay_as_they_are() -> None:
    config = upgrade(earlier())
    assert upgrade(config) == config
