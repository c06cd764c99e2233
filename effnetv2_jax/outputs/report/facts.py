"""`report.json`: what a report shows of a run and no other file of its workdir holds."""

import dataclasses
import json
from typing import Any

from etils import epath

from effnetv2_jax.outputs.storage import read_fresh, write_text

FACTS = "report.json"
PAGE = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """The pictures of training, or of evaluation."""

    name: str
    examples: int
    available: int
    """Examples of the split that it may be a part of."""
    class_counts: list[int] | None = None
    """By class; None where the source does not know them."""
    sizes: list[list[int]] = dataclasses.field(default_factory=list)
    """Widths and heights in pixels of some of them, spread evenly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twins:
    """Pictures that are in training and in evaluation, byte for byte."""

    pairs: list[list[str]] = dataclasses.field(default_factory=list)
    """Files of evaluation, and of training; some of them."""
    count: int = 0
    unchecked: str = ""
    """Why they were not looked for; empty where they were."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A stage of the plan."""

    first_step: int
    end_step: int
    image_size: int
    batch_size: int
    epoch: float
    """At its beginning."""
    values: dict[str, float]
    """What its steps take beside the learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A small picture to look at."""

    source: str
    """`data:` address."""
    text: str
    """What stands below it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What the network saw of a step's batch."""

    stage: int
    step: int
    pictures: list[Picture]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A picture of evaluation."""

    source: str
    """`data:` address; empty where the picture cannot be read."""
    link: str
    """Address of the file; empty where it lies inside a larger one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report shows that metrics, events, config and predictions do not say."""

    step: int
    """Steps done."""
    plan: list[PlannedRow]
    epochs: float
    judged_by: str
    """`ema` or `raw`: the weights that the predictions are of."""
    device: str
    """Platform and kind."""
    splits: dict[str, Split]
    notes: list[str] = dataclasses.field(default_factory=list)
    """What was said when the run began."""
    twins: Twins = Twins()
    unreadable: list[str] = dataclasses.field(default_factory=list)
    """Files of evaluation; some of them."""
    seen: list[Seen] = dataclasses.field(default_factory=list)
    unseen: str = ""
    """Why there is nothing in `seen`, or not of every stage."""
    thumbnails: dict[int, Thumbnail] = dataclasses.field(default_factory=dict)
    """By example."""
    seconds_left: float | None = None


def write_facts(workdir: epath.Path, facts: Facts) -> None:
    """Writes `report.json`."""
    write_text(workdir / FACTS, json.dumps(dataclasses.asdict(facts)) + "\n")


def read_facts(workdir: epath.Path) -> Facts | None:
    """Reads `report.json`; None where there is none, or another version's."""
    text = read_fresh(workdir / FACTS)
    try:
        return None if text is None else _facts(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _facts(content: dict[str, Any]) -> Facts:
    seen = [
        Seen(**entry | {"pictures": [Picture(**picture) for picture in entry["pictures"]]})
        for entry in content["seen"]
    ]
    made: dict[str, Any] = {
        "plan": [PlannedRow(**row) for row in content["plan"]],
        "splits": {name: Split(**split) for name, split in content["splits"].items()},
        "twins": Twins(**content["twins"]),
        "seen": seen,
        "thumbnails": {
            int(example): Thumbnail(**entry) for example, entry in content["thumbnails"].items()
        },
    }
    return Facts(**content | made)
