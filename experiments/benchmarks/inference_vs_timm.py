"""Time of a forward pass in evaluation, beside timm, in float32 on the CPU.

    python experiments/benchmarks/inference_vs_timm.py --model=efficientnetv2-s --size=300

One random batch in memory, from images to logits: ours compiled ahead of time; timm's network of
the same name channels_last under inference_mode, eager, eager with glibc's huge pages (ours
arranges for huge pages by itself), through torch.compile, through torch.compile with its weights
frozen in, and traced and frozen by torch.jit, both of which fold BatchNorm into convolutions. The
sides take turns, each in a process of its own; compilation is not counted. Before, all are given
the same weights, and the logits that are timed have to agree.

Prints JSON; `--output=FILE` keeps it. Needs the `parity` extra.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_vs_timm import (
    HUGE_PAGES,
    check_parity,
    faster_of,
    load_ours,
    load_timms,
    random_batch,
    save_weights,
    seconds_each,
)
from taking_turns import Side, Sides, described, medians, ratio, write
from timm_here import import_timm

PACKAGES = ("jax", "jaxlib", "flax", "timm", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnetv2-s")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "model": options.model,
            "batch": options.batch,
            "size": options.size,
            "weights": save_weights(options.model, Path(folder)),
        }

        def timm_side(name: str, how: str, **environment: str) -> Side:
            return Side(
                name=name,
                make=TimmForward,
                arguments={**shared, "how": how},
                environment=environment,
                may_fail=how != "eager",
            )

        sides = [
            Side(name="ours", make=OurForward, arguments=shared),
            timm_side("timm eager", "eager"),
            timm_side("timm eager, huge pages", "eager", **HUGE_PAGES),
            timm_side("timm compiled", "compiled"),
            timm_side("timm compiled, frozen", "compiled and frozen"),
            timm_side("timm jit, frozen", "jit"),
        ]
        with Sides(sides) as workers:
            apart = check_parity({name: workers.call(name, "logits") for name in workers.names})
            found = workers.turns(options.rounds, "run", options.passes)
    faster = faster_of(found, [name for name in found if name != "ours"])
    result = {
        "ours_over_fastest_timm": ratio(found["ours"], found[faster]),
        "fastest_timm": faster,
        "ours_over": {s: ratio(found["ours"], times) for s, times in found.items() if s != "ours"},
        "milliseconds": medians(found, 1e3),
        "failed": workers.failed,
        "logits_apart": apart,
        **{name: getattr(options, name) for name in ("model", "batch", "size", "rounds", "passes")},
    }
    write(result | described(PACKAGES), options.output)


class OurForward:
    """Our network, compiled and warm."""

    def __init__(self, model: str, batch: int, size: int, weights: Path) -> None:
        import jax

        from effnetv2_jax.parallel import startup
        from effnetv2_jax.parallel.compiler import compiler_options

        startup.start(cache=False)
        network, self._variables = load_ours(model, weights)
        self._images = jax.device_put(random_batch(batch, size)[0])
        jitted = jax.jit(
            lambda variables, images: network.apply(variables, images),
            compiler_options=compiler_options(),
        )
        self._forward = jitted.lower(self._variables, self._images).compile()
        self._found = self._forward(self._variables, self._images)
        self.run(3)

    def logits(self) -> Any:
        import numpy as np

        return np.asarray(self._found)

    def run(self, passes: int) -> float:
        """Seconds per pass, after one that is not counted."""

        def once() -> None:
            self._found = self._forward(self._variables, self._images)

        return seconds_each(once, passes, lambda: self._found.block_until_ready())


class TimmForward:
    """timm's network, warm."""

    def __init__(self, model: str, batch: int, size: int, weights: Path, how: str) -> None:
        _, torch = import_timm()
        self._torch = torch
        network = load_timms(model, weights).eval()
        pictures = torch.from_numpy(random_batch(batch, size)[0]).permute(0, 3, 1, 2)
        self._pictures = pictures.contiguous(memory_format=torch.channels_last)
        self._forward: Callable[[Any], Any] = network
        if how == "jit":
            with torch.no_grad():
                traced = torch.jit.trace(network, self._pictures)
                self._forward = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        elif how != "eager":
            import torch._inductor.config

            torch._inductor.config.freezing = how == "compiled and frozen"
            self._forward = torch.compile(network, dynamic=False)
        self.run(3)

    def logits(self) -> Any:
        with self._torch.inference_mode():
            return self._forward(self._pictures).numpy()

    def run(self, passes: int) -> float:
        """Seconds per pass, after one that is not counted."""
        with self._torch.inference_mode():
            return seconds_each(lambda: self._forward(self._pictures), passes, lambda: None)


if __name__ == "__main__":
    main()
