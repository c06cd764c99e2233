"""S from a table of blocks' memory traffic, which needs no compiler any more.

`compiled` makes the table; a search writes it into its study, and trials read it there.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import digest
from effnetv2_jax.nas.cost.parts import Ends, Part, ends_of, parts_of, table_of
from effnetv2_jax.outputs.storage import write_text

FILE = "traffic.json"
"""In a study."""


def key_of(part: Part, activation: str | None) -> str:
    """What a block's traffic goes by."""
    return digest({"part": part, "activation": activation})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartsTable:
    """A `StepTime`: the traffic of a network's blocks, and a constant, over the reference's."""

    source: str
    """What S is, as trials record it."""
    image_size: int
    """Height and width of the images, in pixels."""
    ends: Ends
    """That the constant holds for."""
    constant: float
    """Bytes that a network's step moves beside its blocks."""
    reference: float
    """Bytes of the reference."""
    blocks: Mapping[str, float]
    """Bytes of each block, by `key_of`."""

    def __call__(self, model: ModelConfig) -> float:
        """S of a network.

        Raises:
          ConfigError: it is no EfficientNet, or has other ends or a block that the table lacks.
        """
        return self.bytes(model) / self.reference

    def bytes(self, model: ModelConfig) -> float:
        """Traffic of a network's step; raises as a call does."""
        whole = table_of(model)
        check_ends(whole, self.ends)
        total = self.constant
        for part, count in parts_of(whole, self.image_size).items():
            key = key_of(part, whole.activation)
            if key not in self.blocks:
                raise ConfigError(f"the table of traffic has no {part}; it was made for others")
            total += count * self.blocks[key]
        return total


def check_ends(model: ModelConfig, ends: Ends) -> None:
    """Raises a ConfigError where a network has other ends, of whatever image size."""
    own = ends_of(model)
    if own != ends:
        raise ConfigError(
            f"the stem, the last block and the head of a candidate have {own.stem}, {own.outputs} "
            f"and {own.head} channels, those of the reference {ends.stem}, {ends.outputs} and "
            f"{ends.head}; what they cost is one constant, so leave their widths out of the "
            "search, or measure"
        )


def write_parts_table(path: epath.Path, table: PartsTable) -> None:
    """Writes a whole file."""
    write_text(path, json.dumps(dataclasses.asdict(table), indent=2) + "\n")


def read_parts_table(path: epath.Path) -> PartsTable:
    """What `write_parts_table` wrote.

    Raises:
      ConfigError: there is no such file, or it holds something else.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return PartsTable(**{**content, "ends": Ends(**content["ends"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"the table of traffic {path} cannot be read ({error}); delete it, and the search's "
            "next start makes it again"
        ) from error
