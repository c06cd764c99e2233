"""Architecture search: training-aware, over the paper's space or any fields of a config."""

from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.space import Choice, choice, paper_space

__all__ = ["Choice", "Search", "choice", "paper_space"]
