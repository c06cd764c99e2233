"""Time of single convolutions and of their gradients: ours, XLA's own and PyTorch's, on the CPU.

    python experiments/benchmarks/conv_ops.py --batch=16

At shapes of EfficientNetV2-S at 128 pixels and, for 5x5 kernels, of EfficientNet-B0 at 224: the
convolution, the gradient of its input and the gradient of its kernel, each by itself. Ours is
`effnetv2_jax.ops.conv` as it is lowered for the CPU, XLA's what it is made of elsewhere, PyTorch's
its operators channels_last, with glibc's huge pages, which ours arranges for by itself. Padding is
symmetric, which all three have. The sides take turns, each in a process of its own; results have to
agree. `--dtype=bfloat16` is the other dtype, `--only=5x5` picks cases whose name contains that.

Prints JSON; `--output=FILE` keeps it. Needs the `parity` extra.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from step_vs_timm import HUGE_PAGES, import_timm, seconds_each
from taking_turns import Side, Sides, described, medians, ratio, write

PACKAGES = ("jax", "jaxlib", "torch")
AGREEMENT = {"float32": 1e-4, "bfloat16": 3e-2}
"""How far results may be apart, as a share of the largest number."""
OPERATIONS = ("forward", "gradient of input", "gradient of kernel")


class Case(NamedTuple):
    """A convolution of `[batch, size, size, inputs]`."""

    kind: str
    size: int
    kernel: int
    stride: int
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}"
        kind = kernel if self.kind == kernel else f"{self.kind} {kernel}"
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        return f"{kind}{stride} {self.size}x{self.size} {self.inputs}->{self.outputs}"

    @property
    def groups(self) -> int:
        return self.inputs if self.kind == "depthwise" else 1


CASES = (
    Case("depthwise", 16, 3, 2, 256, 256),
    Case("depthwise", 8, 3, 1, 512, 512),
    Case("depthwise", 8, 3, 1, 960, 960),
    Case("depthwise", 8, 3, 2, 960, 960),
    Case("depthwise", 4, 3, 1, 1536, 1536),
    Case("depthwise", 112, 3, 1, 32, 32),
    Case("depthwise", 56, 5, 2, 144, 144),
    Case("depthwise", 28, 5, 1, 240, 240),
    Case("depthwise", 14, 5, 1, 672, 672),
    Case("depthwise", 14, 5, 2, 672, 672),
    Case("1x1", 32, 1, 1, 192, 48),
    Case("1x1", 8, 1, 1, 160, 960),
    Case("1x1", 8, 1, 1, 960, 160),
    Case("1x1", 4, 1, 1, 256, 1280),
    Case("dense", 128, 3, 2, 3, 24),
    Case("dense", 64, 3, 1, 24, 24),
    Case("dense", 64, 3, 2, 24, 96),
    Case("dense", 32, 3, 1, 48, 192),
    Case("dense", 32, 3, 2, 48, 192),
    Case("dense", 16, 3, 1, 64, 256),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=sorted(AGREEMENT), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="that a chunk takes")
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shared = {"batch": options.batch, "dtype": options.dtype, "seconds": options.seconds}
    sides = [
        Side(name="ours", make=JaxConvolutions, arguments=shared),
        Side(name="xla", make=JaxConvolutions, arguments={**shared, "plain": True}),
        Side(name="torch", make=TorchConvolutions, arguments=shared, environment=HUGE_PAGES),
    ]
    found: dict[str, Any] = {}
    with Sides(sides) as workers:
        for case in CASES:
            if options.only not in case.name:
                continue
            for operation in OPERATIONS:
                results = {
                    name: workers.call(name, "prepare", case, operation) for name in workers.names
                }
                check(f"{case.name}, {operation}", results, AGREEMENT[options.dtype])
                times = workers.turns(options.rounds, "run")
                found.setdefault(case.name, {})[operation] = {
                    "milliseconds": medians(times, 1e3),
                    "ours_over_xla": ratio(times["ours"], times["xla"]),
                    "ours_over_torch": ratio(times["ours"], times["torch"]),
                }
            print(case.name, file=sys.stderr, flush=True)
    result = {
        "cases": found,
        **{name: getattr(options, name) for name in ("batch", "dtype", "rounds", "seconds")},
    }
    write(result | described(PACKAGES), options.output)


def check(what: str, results: dict[str, Any], agreement: float) -> None:
    ours = results["ours"]
    for name, theirs in results.items():
        if not (apart := abs(theirs - ours).max() / abs(ours).max()) <= agreement:
            sys.exit(f"{what}: ours and {name} are apart by {apart:.2g}.")


def arrays_of(case: Case, batch: int) -> tuple[Any, Any, Any]:
    """Input `[B, H, W, C]`, kernel `[kh, kw, C / groups, D]` and a gradient of the output."""
    import numpy as np

    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape, np.float32)

    out = -(-case.size // case.stride)
    return (
        normal(batch, case.size, case.size, case.inputs),
        normal(case.kernel, case.kernel, case.inputs // case.groups, case.outputs),
        normal(batch, out, out, case.outputs),
    )


class Convolutions:
    """One convolution or gradient at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._once: Callable[[], Any] = lambda: None
        self._times = 1

    def run(self) -> float:
        """Seconds of one call, the mean over a chunk."""
        return seconds_each(self._once, self._times, lambda: None)

    def _warm_up(self, once: Callable[[], Any]) -> None:
        self._once = once
        once()
        start = time.perf_counter()
        once()
        self._times = max(1, int(self._seconds / (time.perf_counter() - start)))


class JaxConvolutions(Convolutions):
    """Ours; XLA's own where they are to be plain."""

    def __init__(self, batch: int, dtype: str, seconds: float, plain: bool = False) -> None:
        super().__init__(seconds)
        from effnetv2_jax.parallel import startup

        startup.start(cache=False)
        self._batch, self._dtype, self._plain = batch, dtype, plain

    def prepare(self, case: Case, operation: str) -> Any:
        """The result, `[..., channels]` in float32."""
        import jax
        import numpy as np

        from effnetv2_jax.ops.conv import conv2d
        from effnetv2_jax.ops.per_platform import plain_operations
        from effnetv2_jax.parallel.compiler import compiler_options

        arrays = [jax.numpy.asarray(a, self._dtype) for a in arrays_of(case, self._batch)]

        def forward(x: Any, kernel: Any) -> Any:
            return conv2d(x, kernel, stride=case.stride, groups=case.groups, padding="symmetric")

        def compute(x: Any, kernel: Any, dy: Any) -> Any:
            if operation == "forward":
                return forward(x, kernel)
            gradients = jax.vjp(forward, x, kernel)[1](dy)
            return gradients[operation == "gradient of kernel"]

        with plain_operations() if self._plain else contextlib.nullcontext():
            options = None if self._plain else compiler_options()
            compiled = jax.jit(compute).lower(*arrays).compile(options)
        self._warm_up(lambda: compiled(*arrays).block_until_ready())
        return np.asarray(compiled(*arrays), np.float32)


class TorchConvolutions(Convolutions):
    """PyTorch's."""

    def __init__(self, batch: int, dtype: str, seconds: float) -> None:
        super().__init__(seconds)
        _, self._torch = import_timm()
        self._torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._batch, self._dtype = batch, getattr(self._torch, dtype)

    def prepare(self, case: Case, operation: str) -> Any:
        """The result, `[..., channels]` in float32; of a kernel `[kh, kw, C / groups, D]`."""
        torch = self._torch
        axes = [(0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)]
        x, kernel, dy = (
            torch.from_numpy(array)
            .permute(order)
            .to(self._dtype)
            .contiguous(memory_format=torch.channels_last)
            for array, order in zip(arrays_of(case, self._batch), axes, strict=True)
        )
        pad, stride = (case.kernel - 1) // 2, case.stride

        def once() -> Any:
            if operation == "forward":
                return torch.nn.functional.conv2d(
                    x, kernel, stride=stride, padding=pad, groups=case.groups
                )
            # What autograd runs, for one gradient alone.
            to_input = operation == "gradient of input"
            gradients = torch.ops.aten.convolution_backward(
                dy,
                x,
                kernel,
                None,
                [stride] * 2,
                [pad] * 2,
                [1, 1],
                False,
                [0, 0],
                case.groups,
                [to_input, not to_input, False],
            )
            return gradients[0 if to_input else 1]

        def without_graph() -> Any:
            with torch.inference_mode():
                return once()

        self._warm_up(without_graph)
        back = (2, 3, 1, 0) if operation == "gradient of kernel" else (0, 2, 3, 1)
        return without_graph().float().permute(back).numpy()


if __name__ == "__main__":
    main()
