"""The canonical form of a network, and its hash: equal for configs that build the same one."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.scaling import round_channels, scaled_repeats
from effnetv2_jax.models.protocol import ModelConfig

_DIGITS = 16


Config = TypeVar("Config", bound=ModelConfig)


def canonical(model: Config) -> Config:
    """The same network with its scale multiplied out, and nothing stated that has no effect.

    A table of stages is scaled, and squeeze-and-excitation is 0 where a block has nothing to
    squeeze: in a fused block with `expand` 1.
    """
    if not isinstance(model, EfficientNetConfig):
        return model.resolved()
    whole = model.resolved()
    width, depth, floor = whole.width or 1.0, whole.depth or 1.0, whole.rounding_floor or 0.0
    rows = whole.stages or ()
    counts = scaled_repeats([row.repeats for row in rows], depth, bool(whole.fixed_ends))
    ends = 1.0 if whole.fixed_ends else width
    return dataclasses.replace(
        whole,
        stages=tuple(
            dataclasses.replace(
                row,
                outputs=round_channels(row.outputs, width, floor),
                repeats=count,
                se_ratio=0.0
                if _squeezes_nothing(row.operator, row.expand)
                else float(row.se_ratio),
            )
            for row, count in zip(rows, counts)
        ),
        stem=round_channels(whole.stem or 0, ends, floor),
        head=round_channels(whole.head or 0, ends, floor),
        width=1.0,
        depth=1.0,
        fixed_ends=False,
        rounding_floor=0.0,
    )


def without_idle_squeeze(model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an EfficientNet, in whose stated table idle squeeze-and-excitation is 0."""
    rows = [
        {**row, "se_ratio": 0.0} if _squeezes_nothing(row["operator"], row["expand"]) else row
        for row in model["stages"] or ()
    ]
    return {**model, "stages": rows or None}


def _squeezes_nothing(operator: str, expand: int) -> bool:
    return operator == "fused" and expand == 1


def network_hash(model: ModelConfig) -> str:
    """16 hexadecimal digits of the network: what it computes, whatever it is called."""
    form = canonical(model)
    return digest({"dtype": model.dtype, "family": type(model).__name__, **form.architecture()})


def digest(content: Any) -> str:
    """16 hexadecimal digits of anything that JSON and dataclasses can say, whatever its order."""
    text = json.dumps(content, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
