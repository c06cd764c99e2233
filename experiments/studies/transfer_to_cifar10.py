"""Fine-tuning on CIFAR-10 from weights of a short pretraining, and from scratch, at equal steps.

    python experiments/studies/transfer_to_cifar10.py --caltech=DIR --cifar=DIR \\
        --output=experiments/results/transfer_to_cifar10

DIR holds Caltech-101 as a folder for each class, and CIFAR-10 as `train/` and `test/` with a folder
for each class. A small EfficientNetV2 learns Caltech-101 by progressive learning, in three stages
of 48 to 80 px. Fine-tuning in the manner of the paper's recipe (squashed pictures, cutout, cosine
learning rate, no L2; learning rate, averaging and warm-up are set for a short run) then starts from
it, and once more from random weights: same steps, order, images and learning rates. Writes
OUTPUT.json and OUTPUT.png (which takes matplotlib). `--runs=DIR` keeps the runs, and a start with
the same DIR continues them. `--share=0.1` shortens everything.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from effnetv2_jax.config import (
    AdamW,
    AugmentConfig,
    CheckpointConfig,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    LogConfig,
    recipes,
)
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.parallel import startup
from effnetv2_jax.progressive import Stage, linear
from effnetv2_jax.system.machine import describe_machine
from effnetv2_jax.train.loop import train

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
MODEL = EfficientNetConfig(
    name="efficientnetv2-b0",
    width=0.5,
    depth=0.34,
    stochastic_depth_rate=0.0,
    bn_momentum=0.9,
    dtype="float32",
)
FINE_TUNING_SIZE = 64
FINE_TUNING_STEPS = 1600
BATCH_SIZE = 64


def pretraining(folder: Path, share: float) -> Experiment:
    """Caltech-101, a tenth of every class held out."""
    epochs = 30 * share
    return Experiment(
        model=MODEL,
        data=DataConfig(
            source="folder",
            path=str(folder),
            crop="torchvision",
            crop_area=(0.3, 1.0),
            interpolation="bilinear",
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        stages=linear(
            3,
            first=Stage(image_size=48, dropout_rate=0.0, randaugment_magnitude=5.0),
            last=Stage(image_size=80, dropout_rate=0.2, randaugment_magnitude=7.0),
        ),
        augment=AugmentConfig(randaugment_layers=1, translate_pixels=12.0, cutout_pixels=12.0),
        epochs=epochs,
        batch_size=32,
        optimizer=AdamW(learning_rate=0.016, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=share),
        ema_decay=0.995,
        evaluation=EvaluationConfig(
            image_size=96, resize="squash", batch_size=64, every_epochs=epochs / 3
        ),
        checkpoint=CheckpointConfig(every_steps=1000),
        log=LogConfig(every_steps=20),
    )


def fine_tuning(folder: Path, init: str, share: float, learning_rate: float) -> Experiment:
    """CIFAR-10 by the recipe of `configs/transfer.py`, at the scale of a small machine."""
    data = DataConfig(source="folder", path=str(folder), num_classes=10, num_train_examples=50_000)
    recipe = recipes.transfer("b0", "paper", data)
    epochs = FINE_TUNING_STEPS * share * BATCH_SIZE / 50_000
    return dataclasses.replace(
        recipe,
        init=init,
        model=MODEL,
        stages=(Stage(image_size=FINE_TUNING_SIZE),),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        optimizer=dataclasses.replace(recipe.optimizer, learning_rate=learning_rate),
        schedule=Cosine(warmup_epochs=epochs / 20),
        ema_decay=0.99,
        evaluation=EvaluationConfig(
            image_size=FINE_TUNING_SIZE, resize="squash", batch_size=256, every_epochs=epochs / 8
        ),
        log=LogConfig(every_steps=20),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--caltech", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=0.016, help="for 256 images a step")
    options = parser.parse_args()
    startup.start()
    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary)
        pretrained = runs / "caltech101"
        experiments = {
            "caltech101": pretraining(options.caltech, options.share),
            "pretrained": fine_tuning(
                options.cifar, f"workdir:{pretrained}", options.share, options.learning_rate
            ),
            "scratch": fine_tuning(options.cifar, "", options.share, options.learning_rate),
        }
        curves = {}
        for name, experiment in experiments.items():
            train(experiment, runs / name)
            curves[name] = curve(runs / name)
    result = describe_machine(PACKAGES) | {
        "command": " ".join(["python", *sys.argv]),
        "data": "Caltech-101 without faces and background; CIFAR-10 (JPEG, quality 75)",
        "model": dataclasses.asdict(MODEL),
        "learning_rate": options.learning_rate,
        "curves": curves,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, options.output.with_suffix(".png"))


def curve(workdir: Path) -> list[dict[str, float]]:
    """Every evaluation of a run: the step, and top-1 of raw and averaged weights in [0, 1]."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {
            "step": line["step"],
            "raw_top1": line["eval/raw_top1"],
            "ema_top1": line["eval/ema_top1"],
            "examples": line["eval/examples"],
        }
        for line in lines
        if "eval/raw_top1" in line
    ]


def plot(result: dict[str, Any], path: Path) -> None:
    """Both fine-tuning curves, of the averaged weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, label, colour in (
        ("pretrained", "from Caltech-101's weights", "tab:blue"),
        ("scratch", "from random weights", "tab:orange"),
    ):
        points = result["curves"][name]
        steps = [point["step"] for point in points]
        top1 = [100 * point["ema_top1"] for point in points]
        axes.plot(steps, top1, marker="o", color=colour, label=label)
    axes.set_xlabel(f"steps of {BATCH_SIZE} images")
    axes.set_ylabel("top-1 on CIFAR-10 (JPEG), %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
