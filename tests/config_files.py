"""Every config file of an experiment, with every argument."""

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict

ROOT = Path(__file__).parent.parent
NAMES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("[a-z]*.py")
    if not path.stem.startswith("search_")  # Those have searches.
)


def arguments(name: str) -> Iterator[str]:
    """Each combination of words that a config file takes, the default first."""
    groups = getattr(_module(name), "ARGUMENTS", ())
    return (",".join(words) for words in itertools.product(*groups))


def load(name: str, argument: str = "") -> Experiment:
    """The experiment of `configs/NAME.py:ARGUMENT`, checked."""
    config = _module(name).get_config(argument)
    if config.data.source == "folder" and not config.data.path:
        config.data.path = "PICTURES"  # As the command line has to say.
    return from_config_dict(config)


def _module(name: str):  # type: ignore[no-untyped-def]
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"configs.{name}")


ALL = [(name, argument) for name in NAMES for argument in arguments(name)]
