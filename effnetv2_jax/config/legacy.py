"""Configs of runs that earlier versions wrote, in the words of this one."""

from collections.abc import Mapping
from typing import Any

_OPTIMIZERS: dict[str, dict[str, str]] = {
    "rmsprop": {"decay": "decay", "momentum": "momentum", "epsilon": "epsilon", "l2": "l2"},
    "sgd": {"momentum": "momentum", "l2": "l2"},
    "adamw": {
        "momentum": "beta1",
        "decay": "beta2",
        "epsilon": "epsilon",
        "weight_decay": "weight_decay",
        "l2": "l2",
    },
}
"""By optimizer, the fields it read when one dataclass served all, and their names now."""

_SCHEDULES = {
    "exponential": ("warmup_epochs", "decay_rate", "decay_epochs"),
    "cosine": ("warmup_epochs",),
    "constant": ("warmup_epochs",),
}


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run as this version would have written it.

    A field that this version cannot express stays, so that reading the config names it; AdamW's L2
    penalty is the one there is.

    Args:
      config: nested dicts of JSON values, of this version or of an earlier one.
    """
    if "trainable" not in config:
        return dict(config)
    kept = {name: value for name, value in config.items() if name != "trainable"}
    optimizer, schedule = config["optimizer"], config["schedule"]
    common = {name: name for name in ("name", "learning_rate", "gradient_clip")}
    of_optimizer = common | _OPTIMIZERS[optimizer["name"]]
    fields = {new: optimizer[old] for old, new in of_optimizer.items() if old in optimizer}
    if optimizer["name"] == "adamw" and not fields.get("l2"):
        fields.pop("l2", None)
    of_schedule = ("name", *_SCHEDULES[schedule["name"]])
    return kept | {
        "optimizer": fields,
        "schedule": {name: schedule[name] for name in of_schedule if name in schedule},
        "rates": _rates(config["trainable"], optimizer),
    }


def _rates(trainable: str, optimizer: Mapping[str, Any]) -> list[list[Any]]:
    """Each wins a parameter of its own, as rates have to: what stays is named, and no more."""
    rates: list[list[Any]] = [] if trainable == ".*" else [[f"^(?!.*(?:{trainable}))", 0.0]]
    of_classifier = optimizer.get("classifier_learning_rate")
    if of_classifier is not None:
        rates.append(["^classifier/", of_classifier / optimizer["learning_rate"]])
    return rates
