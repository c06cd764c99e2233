"""Pictures classified per second, beside timm, from files to the five best classes.

    python experiments/benchmarks/predict_vs_timm.py FOLDER --pictures=2000

Both sides read the same picture files, with the same weights, crop and batch size, on the CPU: ours
through `effnetv2_jax.predict.predict`, timm's through its own transforms, a DataLoader with
`--workers` processes and channels_last. They take turns, each in a process of its own; start-up,
and the compilation of ours, which a first batch brings about, are not counted. Prints JSON;
`--output=FILE` keeps it. Needs the `parity` extra.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timm_here import import_timm

from effnetv2_jax.data.sources.unlabelled import list_pictures

PACKAGES = ("jax", "flax", "simplejpeg", "opencv-python-headless", "timm", "torch")
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default="efficientnetv2-b0")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=["ours", "timm"], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        paths = list_pictures([options.folder])[: options.pictures]
        measure = {"ours": ours, "timm": timms}[options.side]
        print(json.dumps(measure(paths, options.weights, options.workers)))
        return

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        save_weights(options.model, weights)
        found: dict[str, list[Any]] = {"ours": [], "timm": []}
        for _ in range(options.rounds):
            for side, results in found.items():
                results.append(run(side, weights, sys.argv[1:]))
    from effnetv2_jax.system.machine import describe_machine

    rates = {side: [each["per_second"] for each in results] for side, results in found.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["timm"], strict=True)]
    agreeing = [a == b for a, b in zip(found["ours"][0]["best"], found["timm"][0]["best"])]
    result = describe_machine(PACKAGES) | {
        "command": " ".join(["python", *sys.argv]),
        "model": options.model,
        "pictures": len(found["ours"][0]["best"]),
        "pictures_per_second": {s: round(statistics.median(r), 1) for s, r in rates.items()},
        "ours_over_timm": round(statistics.median(ratios), 2),
        "ours_over_timm_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "same_best_class": round(sum(agreeing) / len(agreeing), 3),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def run(side: str, weights: Path, arguments: list[str]) -> Any:
    command = [sys.executable, __file__, *arguments, f"--side={side}", f"--weights={weights}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def save_weights(name: str, folder: Path) -> None:
    """timm's random weights for a model, with a classifier that does not say the same of all."""
    timm, torch = import_timm()
    model = timm.create_model(f"tf_{name.replace('-', '_')}", num_classes=1000)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 1.0)
    timm.models.save_for_hf(model, folder, safe_serialization=True)


def ours(paths: list[str], weights: Path, threads: int) -> dict[str, Any]:
    from effnetv2_jax import load_pretrained
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.predict import predict

    startup.start()
    model, variables = load_pretrained(None, weights)
    predictions = predict(
        model, variables, paths[:BATCH] + paths, batch_size=BATCH, threads=threads
    )
    for _ in range(BATCH):
        next(predictions)
    start = time.perf_counter()
    best = [each.guesses[0].label for each in predictions]
    return {"best": best, "per_second": len(best) / (time.perf_counter() - start)}


def timms(paths: list[str], weights: Path, workers: int) -> dict[str, Any]:
    timm, torch = import_timm()
    from PIL import Image

    model = timm.create_model(f"local-dir:{weights}", pretrained=True)
    model = model.eval().to(memory_format=torch.channels_last)
    settings = timm.data.resolve_data_config({}, model=model, use_test_size=True)
    transform = timm.data.create_transform(**settings)

    class Pictures(torch.utils.data.Dataset):  # type: ignore[name-defined]
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(paths[index]).convert("RGB"))

    loader = torch.utils.data.DataLoader(Pictures(), batch_size=BATCH, num_workers=workers)
    best: list[int] = []
    with torch.inference_mode():
        model(torch.zeros(BATCH, *settings["input_size"]).to(memory_format=torch.channels_last))
        start = time.perf_counter()
        for batch in loader:
            logits = model(batch.to(memory_format=torch.channels_last))
            best += logits.softmax(1).topk(5).indices[:, 0].tolist()
    return {"best": best, "per_second": len(best) / (time.perf_counter() - start)}


if __name__ == "__main__":
    main()
