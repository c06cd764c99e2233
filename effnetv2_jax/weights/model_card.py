"""`README.md` of saved weights: what they are and how to load them, ready for the Hub."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of_model
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights.networks import Counterpart

CARD = "README.md"
MARK = "<!-- Written by effnetv2_jax; without this line it is left as it is. -->"
_NAMES = 10
"""Classes that are listed by name."""


class Origin(NamedTuple):
    """What is known of weights beside what they compute."""

    license: str | None = None
    """As the Hub writes it, such as `apache-2.0`."""
    datasets: Sequence[str] = ()
    """What they were trained on, as the Hub writes it: `imagenet-1k`, `OWNER/NAME`."""
    metrics: Mapping[str, float] | None = None
    """Measured on the last of these data sets, by the Hub's names: `{"accuracy": 0.83}`."""


def write_model_card(
    folder: Path, model: Model, library: str, known: Counterpart | None, origin: Origin
) -> None:
    """Writes the card, unless there is one that somebody else wrote.

    Args:
      library: that the files beside it are for.
      known: what that library has for the model; None in our own format.
    """
    path = folder / CARD
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    title = f"{model.config.name}, {model.num_classes:,} classes"
    parts = [
        f"---\n{_head(title, library, model, origin)}\n---",
        MARK,
        f"# {title}",
        "\n".join(_table(model, origin)),
        "## Load",
        _load_ours(),
        *_load_theirs(library, known),
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _head(title: str, library: str, model: Model, origin: Origin) -> str:
    """The YAML that the Hub reads."""
    # Imported here: it takes half a second.
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if origin.datasets and origin.metrics:
        name = origin.datasets[-1]
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=name,
                dataset_name=name,
                metric_type=metric,
                metric_value=value,
            )
            for metric, value in origin.metrics.items()
        ]
    data: Any = ModelCardData(
        model_name=title,
        library_name=library,
        license=origin.license,
        datasets=list(origin.datasets) or None,
        metrics=list(origin.metrics or ()) or None,
        pipeline_tag="image-classification" if model.num_classes else "image-feature-extraction",
        tags=list(dict.fromkeys(["effnetv2_jax", "jax", family_of_model(model).name, library])),
        eval_results=results,
    )
    return str(data.to_yaml())


def _table(model: Model, origin: Origin) -> list[str]:
    names = [json.dumps(name, ensure_ascii=False) for name in model.class_names or ()]
    more = ", ..." if len(names) > _NAMES else ""
    classes = f"{', '.join(names[:_NAMES])}{more}" if names else "without names"
    computes = ", ".join(
        f"{field} {value}"
        for field in model.config.NUMERICS
        if (value := getattr(model.config, field)) is not None
    )
    measured = ", ".join(f"{name} {value:g}" for name, value in (origin.metrics or {}).items())
    rows = {
        "network": ", ".join(filter(None, [model.config.name, computes])),
        "classes": f"{model.num_classes:,}: {classes}" if model.num_classes else "none",
        "pictures": _words(model.preprocessing),
        "data": ", ".join(origin.datasets) or "not stated",
        "measured": measured or "not stated",
    }
    cells = (f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items())
    return ["| | |", "|---|---|", *cells]


def _words(preprocessing: Preprocessing) -> str:
    size, padding = preprocessing.image_size, preprocessing.crop_padding
    part = "the whole picture" if padding is None else f"the central {size / (size + padding):.1%}"
    of_number = {1: "grey", 3: "RGB"}
    channels = of_number.get(preprocessing.channels, f"{preprocessing.channels} channels")
    antialias = " with antialiasing" if preprocessing.antialias else ""
    mean, std = (
        [round(value, 3) for value in values] for values in (preprocessing.mean, preprocessing.std)
    )
    return (
        f"{channels}, {part} at {size} x {size} pixels, {preprocessing.interpolation}{antialias}, "
        f"(x - {mean}) / {std} of grey levels"
    )


def _load_ours() -> str:
    return _code(
        "from effnetv2_jax import load_pretrained, preprocess",
        "",
        'model, variables = load_pretrained(None, "hub:OWNER/REPO")  # Or the path of this folder.',
        'output = model.apply(variables, preprocess("cat.jpg", like=model))',
    )


def _load_theirs(library: str, known: Counterpart | None) -> list[str]:
    if known is None or known.name is None:
        return []
    match library:
        case "timm":
            return [
                _code(
                    "import timm",
                    "",
                    'model = timm.create_model("hf-hub:OWNER/REPO", pretrained=True)',
                )
            ]
        case "torchvision":
            return [
                _code(
                    "import torchvision",
                    "from safetensors.torch import load_file",
                    "",
                    f"model = torchvision.models.{known.name}(num_classes=...)",
                    'model.load_state_dict(load_file("model.safetensors"), strict=False)',
                )
            ]
        case _:
            return [_code("import keras", "", 'model = keras.saving.load_model("model.keras")')]


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
