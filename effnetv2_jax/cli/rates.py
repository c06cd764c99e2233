"""What `--mode=find_rate` found, in lines and as a file."""

import dataclasses
import json
from collections.abc import Iterator

from effnetv2_jax.outputs.storage import write_text
from effnetv2_jax.outputs.workdir import workdir_path
from effnetv2_jax.train.find_rate import RateSearch

FILE = "learning_rates.json"
_BARS = 30
"""Characters of the longest bar."""
_LINES = 16


def describe_rates(found: RateSearch, workdir: str) -> Iterator[str]:
    """The smoothed loss as bars over the learning rate, and what is suggested.

    Args:
      workdir: where the curve goes, as `learning_rates.json`; empty writes none.
    """
    lowest, highest = min(found.losses), max(found.losses)
    scale = _BARS / (highest - lowest or 1.0)
    for index in range(0, len(found.losses), -(-len(found.losses) // _LINES)):
        loss = found.losses[index]
        yield f"{found.rates[index]:9.2e}  {loss:8.4f}  {'#' * round((loss - lowest) * scale)}"
    if workdir:
        path = workdir_path(workdir) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(dataclasses.asdict(found), indent=1) + "\n")
        yield f"the curve is in {path}"
    yield (
        f"the loss is lowest at {found.lowest_loss_at:.3g} and falls fastest at "
        f"{found.suggested:.3g}: try --config.optimizer.learning_rate={found.suggested:.2g}"
    )
