"""Writes docs/plans.md: what every config will do, as `--mode=plan` prints it.

    python experiments/plans.py

Takes some minutes: each network is traced at each image size.
"""

import importlib
import sys
from pathlib import Path

from effnetv2_jax.cli.plan import describe
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import from_config_dict

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "plans.md"
_MODELS = ("s", "m", "l", "xl")
CONFIGS = {
    **{f"imagenet_{name}": ("paper", "code") for name in ("s", "m", "l")},
    "imagenet_b": [f"b{index},{origin}" for index in range(4) for origin in ("paper", "code")],
    "imagenet_v1": ("b0", "b1", "b2", "b3", "b4", "b4,progressive", "b5", "b6", "b7"),
    "imagenet_resnet": ("50,224,progressive", "50,380,progressive", "152,380,progressive"),
    "imagenet_resnet_rs": ("50", "420"),
    "imagenet_vit": ("deit-s", "deit-b"),
    "imagenet21k": [f"{name},{rest}" for name in _MODELS for rest in ("paper", "code,sigmoid")],
    "imagenet_ft": [f"{name},{origin}" for name in _MODELS for origin in ("paper", "code")],
    "transfer": (
        "cifar10,s",
        "cifar10,m",
        "cifar10,l",
        "cifar10,b0",
        "cifar100",
        "flowers",
        "cars",
    ),
    "quickstart": ("",),
}
"""The arguments shown; others differ in the model or in one line."""
HEAD = """# What every config does

As `python -m effnetv2_jax.main --mode=plan --config=FILE` prints it; made by
`python experiments/plans.py`. `imagenet_m.py:random-resize` has 44 stages, and is left out;
`finetune.py` and `folder.py` depend on your pictures.
"""


def load(name: str, argument: str) -> Experiment:
    """The experiment of `configs/NAME.py:ARGUMENT`."""
    return from_config_dict(importlib.import_module(f"configs.{name}").get_config(argument))


def section(name: str, argument: str) -> str:
    """A heading and the plan."""
    title = f"configs/{name}.py" + (f":{argument}" if argument else "")
    return f"## `{title}`\n\n```\n{describe(load(name, argument))}\n```\n"


def main() -> None:
    sections = [
        section(name, argument) for name, arguments in CONFIGS.items() for argument in arguments
    ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([HEAD, *sections]))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
