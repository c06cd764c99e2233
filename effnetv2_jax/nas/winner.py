"""The best network of a study: `best.json`, which names its run and states its table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import canonical
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.records import Proposal, Result, write_json
from effnetv2_jax.nas.space import settings
from effnetv2_jax.nas.trial import candidate_of
from effnetv2_jax.outputs.workdir import WINNER


def write_winner(
    study: epath.Path,
    search: Search,
    proposal: Proposal,
    result: Result,
    *,
    workdir: str,
    finals: Mapping[str, Any] | None = None,
) -> None:
    """Writes `best.json`.

    Args:
      workdir: of its run, relative to the study.
      finals: what they say of it, where they decided.
    """
    model = candidate_of(search, proposal).model
    content = {
        "trial": proposal.number,
        "workdir": workdir,
        "settings": settings(search.space, proposal.picks),
        "model": dataclasses.asdict(canonical(model)),
        "row": row(model),
        "result": dataclasses.asdict(result),
        "finals": dict(finals) if finals else None,
    }
    write_json(study / WINNER, content)


def row(model: ModelConfig) -> str:
    """Its table, as `effnetv2_jax.models.efficientnet.variants` has others; empty without one."""
    stages = getattr(canonical(model), "stages", None) or ()
    rows = [
        f"    StageSpec({each.operator!r}, {each.kernel}, {each.stride}, {each.expand}, "
        f"{each.outputs}, {each.repeats}, {each.se_ratio:g}),"
        for each in stages
    ]
    return "\n".join(["(", *rows, ")"]).replace("'", '"') if rows else ""
