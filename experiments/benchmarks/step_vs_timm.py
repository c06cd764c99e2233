"""Time of a bare training step, beside timm, in float32 on the CPU.

    python experiments/benchmarks/step_vs_timm.py --model=efficientnetv2-s --batch=16 --size=128

Forward, backward, BatchNorm's statistics and SGD with momentum, on one random batch in memory:
ours compiled ahead of time; timm's network of the same name channels_last, eager, eager with
glibc's huge pages (ours arranges for huge pages by itself) and through torch.compile. `--plain`
adds the same network out of Flax's own layers. The sides take turns, each in a process of its own;
compilation is not counted. Before, all are given the same weights, and their logits in evaluation
have to agree.

`--table` says where the time goes in ours and in timm eager, by JAX's and PyTorch's profilers.
Threads overlap, and so do their events: the categories are scaled to sum to the measured time of a
step. A fusion of ours is divided among the operations in it by elements, weighted with `COSTS`;
what XLA computes anew in the backward pass counts for what it is, not for where. PyTorch computes
both gradients of a convolution in one operation.

Prints JSON; `--output=FILE` keeps it. Needs the `parity` extra.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from taking_turns import Side, Sides, described, medians, ratio, rounded, write
from timm_here import import_timm

PACKAGES = ("jax", "jaxlib", "flax", "optax", "timm", "torch")
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
AGREEMENT = 1e-3
"""How far logits may be apart, as a share of the largest."""
DROPOUT = STOCHASTIC_DEPTH = 0.2
MOMENTUM = 0.9
LEARNING_RATE = 1e-5
"""Leaves the network much as it is, over hundreds of steps on one batch."""
COMPARED = 8
"""Images whose logits are compared."""
CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnetv2-s")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = save_weights(options.model, Path(folder))
        shared = {
            "model": options.model,
            "batch": options.batch,
            "size": options.size,
            "weights": weights,
        }
        timm_side = functools.partial(Side, make=TimmStep)
        compiled = shared | {"compiled": True}
        sides = [
            Side(name="ours", make=OurStep, arguments=shared),
            timm_side(name="timm eager", arguments=shared),
            timm_side(name="timm eager, huge pages", arguments=shared, environment=HUGE_PAGES),
            timm_side(name="timm compiled", arguments=compiled, may_fail=True),
        ]
        if options.plain:
            plain = shared | {"plain": True}
            sides.append(Side(name="plain flax", make=OurStep, arguments=plain))
        with Sides(sides) as workers:
            apart = check_parity({name: workers.call(name, "logits") for name in workers.names})
            found = workers.turns(options.rounds, "run", options.steps)
            losses = {name: workers.call(name, "last_loss") for name in workers.names}
            table = {}
            if options.table:
                for side in ("ours", "timm eager"):
                    step = statistics.median(found[side])
                    categories = workers.call(side, "categories", options.steps)
                    table[side] = scaled(categories, 1e3 * step)
    faster = faster_of(found, ("timm eager", "timm compiled"))
    result = {
        "ours_over_faster_timm": ratio(found["ours"], found[faster]),
        "faster_timm": faster,
        "ours_over": {s: ratio(found["ours"], times) for s, times in found.items() if s != "ours"},
        "milliseconds": medians(found, 1e3),
        "failed": workers.failed,
        "logits_apart": apart,
        "last_loss": losses,
        **({"milliseconds_by_category": table} if options.table else {}),
        **{name: getattr(options, name) for name in ("model", "batch", "size", "rounds", "steps")},
    }
    write(result | described(PACKAGES), options.output)


def faster_of(found: Mapping[str, list[float]], names: Iterable[str]) -> str:
    """Which of these sides, as far as they are there, has the smallest median."""
    return min((n for n in names if n in found), key=lambda name: statistics.median(found[name]))


def save_weights(name: str, folder: Path) -> Path:
    """timm's random weights, with statistics and a classifier that tell one thing from another."""
    timm, torch = import_timm()
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(timm_name(name), num_classes=CLASSES)
    damped = []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.momentum = 1.0
            if getattr(module, "has_skip", False):
                # Deep networks of equal branches amplify even rounding errors.
                *_, last = (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d))
                damped.append(last)
        for norm in damped:
            norm.weight.mul_(0.2)
        model.classifier.weight.normal_(0, 0.1)
        # Statistics of other networks than this one let its values grow beyond all bounds.
        model.train()(torch.randn(COMPARED, 3, 64, 64))
    save_file(model.state_dict(), path := folder / "weights.safetensors")
    return path


def check_parity(logits: Mapping[str, Any]) -> dict[str, float]:
    """How far each side's logits are from ours, as a share of the largest; ends a run that differs.

    Args:
      logits: NumPy arrays by side, `ours` among them.
    """
    ours = logits["ours"]
    apart = {
        name: float(abs(theirs - ours).max() / abs(ours).max())
        for name, theirs in logits.items()
        if name != "ours"
    }
    if not all(each <= AGREEMENT for each in apart.values()):
        sys.exit(f"The sides do not compute the same; their logits are apart by {apart}.")
    return {name: float(f"{each:.2g}") for name, each in apart.items()}


def number(value: float) -> float | str:
    """A number as JSON has it, and one that JSON does not have as text."""
    return rounded(value) if math.isfinite(value) else str(value)


def scaled(categories: Mapping[str, float], total: float) -> dict[str, float]:
    factor = total / sum(categories.values())
    return {name: rounded(factor * each) for name, each in sorted(categories.items())}


def timm_name(name: str) -> str:
    return f"tf_{name.replace('-', '_')}"


def load_ours(name: str, weights: Path, **fields: Any) -> tuple[Any, Any]:
    """Our model with timm's weights, through the package's converter, and its variables."""
    import jax
    import jax.numpy as jnp
    from safetensors.numpy import load_file

    from effnetv2_jax import create_model
    from effnetv2_jax.models.efficientnet.names import TIMM
    from effnetv2_jax.weights.convert import from_library

    model = create_model(
        name,
        num_classes=CLASSES,
        dropout_rate=DROPOUT,
        stochastic_depth_rate=STOCHASTIC_DEPTH,
        **fields,
    )
    variables = from_library(model, load_file(weights), TIMM)
    return model, jax.tree.map(jnp.asarray, variables)


def load_timms(name: str, weights: Path) -> Any:
    """timm's model, channels_last, with the same weights and rates."""
    timm, torch = import_timm()
    from safetensors.torch import load_file

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = timm.create_model(
        timm_name(name),
        num_classes=CLASSES,
        drop_rate=DROPOUT,
        drop_path_rate=STOCHASTIC_DEPTH,
    )
    model.load_state_dict(load_file(weights))
    return model.to(memory_format=torch.channels_last)


def random_batch(batch: int, size: int) -> tuple[Any, Any]:
    """Normal images `[B, H, W, 3]` and labels `[B]`, NumPy's."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.standard_normal((batch, size, size, 3), np.float32)
    return images, random.integers(CLASSES, size=batch)


class OurStep:
    """Our training step, compiled and warm."""

    def __init__(
        self,
        model: str,
        batch: int,
        size: int,
        weights: Path,
        plain: bool = False,
        dtype: str = "float32",
    ) -> None:
        import jax
        import jax.numpy as jnp
        import numpy as np
        import optax

        from effnetv2_jax.parallel import startup
        from effnetv2_jax.parallel.compiler import compiler_options

        startup.start(cache=False)
        self._network, variables = load_ours(model, weights, dtype=jnp.dtype(dtype))
        # A copy: the step overwrites what it is given.
        self._weights = jax.tree.map(np.array, variables)
        self._plain = plain
        images, labels = random_batch(batch, size)
        self._batch = jax.device_put((images, labels.astype("int32")))
        optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)

        def step(state: Any, images: Any, labels: Any) -> Any:
            params, batch_stats, opt_state, number = state
            key = jax.random.fold_in(jax.random.key(0), number)

            def loss_of(params: Any) -> Any:
                logits, updated = self._network.apply(
                    {"params": params, "batch_stats": batch_stats},
                    images,
                    train=True,
                    rngs={"dropout": key},
                    mutable=["batch_stats"],
                )
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return losses.mean(), updated["batch_stats"]

            (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
            with jax.named_scope("optimizer"):
                updates, opt_state = optimizer.update(grads, opt_state, params)
                params = optax.apply_updates(params, updates)
            return (params, batch_stats, opt_state, number + 1), loss

        start = time.perf_counter()
        params = variables["params"]
        self._state = (params, variables["batch_stats"], optimizer.init(params), jnp.int32(0))
        options = None if plain else compiler_options()
        with self._layers(), named_convolutions():
            jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
            self._step = jitted.lower(self._state, *self._batch).compile()
        self._loss = jnp.float32(0)
        self.run(0)
        self._to_first_step = time.perf_counter() - start
        self.run(2)

    def _layers(self) -> contextlib.AbstractContextManager[None]:
        if not self._plain:
            return contextlib.nullcontext()
        from plain_flax import plain_flax

        return plain_flax()

    def logits(self) -> Any:
        """In float32, with the weights before the first step."""
        import jax
        import numpy as np

        exact = self._network.clone(dtype=jax.numpy.float32)
        evaluate = jax.jit(lambda variables, images: exact.apply(variables, images))
        with self._layers(), jax.default_matmul_precision("highest"):
            return np.asarray(evaluate(self._weights, self._batch[0][:COMPARED]))

    def last_loss(self) -> float | str:
        return number(float(self._loss))

    def seconds_to_first_step(self) -> float:
        """What compiling and the first step took."""
        return rounded(self._to_first_step)

    def text(self) -> str:
        """The compiled program."""
        text = self._step.as_text()
        assert text is not None
        return text

    def run(self, steps: int) -> float:
        """Seconds per step, after one that is not counted."""
        import jax

        def once() -> None:
            self._state, self._loss = self._step(self._state, *self._batch)

        return seconds_each(once, steps, lambda: jax.block_until_ready((self._state, self._loss)))

    def categories(self, steps: int) -> dict[str, float]:
        """Nanoseconds by category."""
        shares = shares_of_instructions(self.text())
        found: dict[str, float] = collections.defaultdict(float)
        for name, nanoseconds in self.instruction_times(steps).items():
            for category, share in shares[name].items():
                found[category] += share * nanoseconds
        return dict(found)

    def instruction_times(self, steps: int, folder: Path | None = None) -> dict[str, float]:
        """Nanoseconds of `steps` steps by HLO instruction, less those of instructions inside it.

        Args:
          folder: keeps the trace.
        """
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            target = folder or Path(temporary)
            with jax.profiler.trace(str(target), profiler_options=options):
                self.run(steps - 1)
            traces = sorted(target.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
            return times_in(traces[-1], instructions(self.text()))


class TimmStep:
    """timm's training step, warm."""

    def __init__(
        self,
        model: str,
        batch: int,
        size: int,
        weights: Path,
        compiled: bool = False,
        device: str = "cpu",
        autocast: bool = False,
        mode: str | None = None,
    ) -> None:
        _, torch = import_timm()
        self._torch = torch
        self._device = device
        torch.backends.cudnn.benchmark = True
        network = load_timms(model, weights).to(device)
        images, labels = random_batch(batch, size)
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        self._pictures = pictures.contiguous(memory_format=torch.channels_last)
        self._labels = torch.from_numpy(labels).to(device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.inference_mode():
            self._logits = network.eval()(self._pictures[:COMPARED]).cpu().numpy()
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        network.train()
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()

        def loss_of(pictures: Any, labels: Any) -> Any:
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                return torch.nn.functional.cross_entropy(network(pictures), labels)

        self._loss_of: Callable[..., Any] = loss_of
        if compiled:
            self._loss_of = torch.compile(loss_of, dynamic=False, mode=mode)
        parameters = network.parameters()
        self._optimizer = torch.optim.SGD(parameters, LEARNING_RATE, MOMENTUM, fused=True)
        self._loss = torch.zeros(())
        start = time.perf_counter()
        self.run(0)
        self._to_first_step = time.perf_counter() - start
        self.run(2)

    def logits(self) -> Any:
        return self._logits

    def last_loss(self) -> float | str:
        return number(float(self._loss))

    def seconds_to_first_step(self) -> float:
        """What compiling and the first step took."""
        return rounded(self._to_first_step)

    def run(self, steps: int) -> float:
        """Seconds per step, after one that is not counted."""
        seconds = seconds_each(self._once, steps, self._wait)
        if self._device != "cpu":
            # The other sides need the memory in their turns.
            self._torch.cuda.empty_cache()
        return seconds

    def peak_bytes(self) -> dict[str, int]:
        """Since before the first step."""
        return {
            "allocated": self._torch.cuda.max_memory_allocated(),
            "reserved": self._torch.cuda.max_memory_reserved(),
        }

    def _once(self) -> None:
        loss = self._loss_of(self._pictures, self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()

    def _wait(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.synchronize()

    def categories(self, steps: int) -> dict[str, float]:
        """Microseconds by category."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            for _ in range(steps):
                self._once()
        found: dict[str, float] = collections.defaultdict(float)
        for event in profiler.key_averages(group_by_input_shape=True):
            category = category_of_operator(event.key, event.input_shapes)
            found[category] += event.self_cpu_time_total
        return dict(found)


def seconds_each(once: Callable[[], None], times: int, wait: Callable[[], object]) -> float:
    """Seconds that `once` takes, the mean over `times`, after one that is not counted."""
    once()
    wait()
    start = time.perf_counter()
    for _ in range(times):
        once()
    wait()
    return (time.perf_counter() - start) / max(times, 1)


FORWARD, TO_INPUT, TO_KERNEL = "forward", "gradient of input", "gradient of kernel"
ELEMENTWISE = "other elementwise"
SQUEEZE = "squeeze-and-excitation"
OPTIMIZER = "optimizer"
REST = "rest"


@contextlib.contextmanager
def named_convolutions() -> Iterator[None]:
    """Writes in the metadata of a program which of its convolutions' three maps is which."""
    import jax

    from effnetv2_jax.ops import conv

    class Named:
        def __init__(self, primitive: Any, name: str) -> None:
            self._primitive, self._name = primitive, name

        def bind(self, *arrays: Any, **params: Any) -> Any:
            with jax.named_scope(self._name):
                return self._primitive.bind(*arrays, **params)

    names = {"_forward": FORWARD, "_to_input": TO_INPUT, "_to_kernel": TO_KERNEL}
    with contextlib.ExitStack() as stack:
        for attribute, name in names.items():
            named = Named(getattr(conv, attribute), f"convolution {name}".replace(" ", "_"))
            stack.enter_context(mock.patch.object(conv, attribute, named))
        yield


@dataclasses.dataclass
class Instruction:
    """One line of HLO text."""

    computation: str
    opcode: str
    op_name: str
    """Of what it was traced from; empty where XLA made it."""
    elements: int
    operands: list[str]
    calls: str
    """The computation of a fusion."""
    line: str


def instructions(text: str) -> dict[str, Instruction]:
    """Every instruction in HLO text, by name."""
    instruction = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)")
    found, computation = {}, ""
    for line in text.splitlines():
        if start := re.match(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            computation = start[1]
        elif match := instruction.match(line):
            op_name = re.search(r'op_name="([^"]*)"', line)
            calls = re.search(r"calls=%?([\w.-]+)", line)
            shape = re.match(r"\w+\[([\d,]*)\]", match[2])
            found[match[1]] = Instruction(
                computation=computation,
                opcode=match[3],
                op_name=op_name[1] if op_name else "",
                elements=math.prod(map(int, filter(None, shape[1].split(",")))) if shape else 1,
                operands=re.findall(r"%([\w.-]+)", match[4]),
                calls=calls[1] if calls else "",
                line=line.strip(),
            )
    return found


MOVES = re.compile(
    "bitcast|bitcast-convert|broadcast|concatenate|constant|convert|copy|dynamic-slice|"
    "dynamic-update-slice|get-tuple-element|iota|pad|parameter|reshape|reverse|slice|transpose|"
    "tuple"
)
"""Opcodes that compute nothing."""
COSTS = {"exponential": 10, "logistic": 14, "divide": 4, "rsqrt": 4, "dot": 1e6, "convolution": 1e6}
"""Of an element, where an addition's is 1; a product of matrices is what its fusion is for."""


def shares_of_instructions(text: str) -> dict[str, dict[str, float]]:
    """Which share of the time of each instruction in HLO text belongs to which category.

    A fusion is divided among the operations in it, by what they cost.
    """
    every = instructions(text)
    kernels = kernel_sizes(text)
    inside: dict[str, list[Instruction]] = collections.defaultdict(list)
    users: dict[str, list[str]] = collections.defaultdict(list)
    for name, each in every.items():
        inside[each.computation].append(each)
        for operand in each.operands:
            users[operand].append(name)

    def origin(name: str, steps: int = 4) -> str:
        """What an instruction was traced from, or else one near it."""
        if every[name].op_name or not steps:
            return every[name].op_name
        near = [*users[name], *(o for o in every[name].operands if o in every)]
        return next(filter(None, (origin(each, steps - 1) for each in near)), "")

    def shares(name: str) -> dict[str, float]:
        parts = inside.get(every[name].calls, [every[name]])
        if any(part.opcode == "convolution" and not part.op_name for part in parts):
            # XLA writes only those anew, in another order of axes and without a name.
            return {f"dense, {TO_KERNEL}": 1.0}
        named = [part for part in parts if part.op_name]
        computing = [part for part in named if not MOVES.fullmatch(part.opcode)] or named
        costs: dict[str, float] = collections.defaultdict(float)
        for part in computing:
            cost = part.elements * COSTS.get(part.opcode, 1)
            costs[category_of_path(part.op_name, kernels)] += cost
        if not costs:
            return {category_of_path(origin(name), kernels): 1.0}
        return {category: cost / sum(costs.values()) for category, cost in costs.items()}

    return {name: shares(name) for name in every}


def kernel_sizes(text: str) -> dict[str, int]:
    """Height of the kernel by module, from the names and shapes of a program's arguments."""
    argument = re.compile(r"(\w+?)____conv____kernel__\S* = \w+\[(\d+),\d+,\d+,\d+\]")
    found = {}
    for name, height in argument.findall(text):
        path = re.sub(r"^.*?(?=blocks_|stem|head)", "", name).replace("____", "/")
        found[path] = int(height)
    return found


def category_of_path(path: str, kernels: Mapping[str, int]) -> str:
    if "/optimizer/" in path:
        return OPTIMIZER
    module = re.search(r"\(?EfficientNet\)*/(.*)", path)
    if module is None:
        return REST
    inside = module[1]
    if "/se/" in inside:
        return SQUEEZE
    if "/conv/" in inside:
        where = inside.split("/conv/")[0]
        which = re.findall(r"convolution_(\w+)", inside)[-1:] or [FORWARD]
        if which == [FORWARD] and "transpose(" in path:
            # Two cotangents of a convolution's output, added.
            return ELEMENTWISE
    else:
        if "silu" in inside:
            return "SiLU"
        if "/bn/" in inside:
            return "BatchNorm"
        return ELEMENTWISE if inside.startswith(("blocks_", "stem", "head")) else REST
    dense = "1x1" if kernels.get(where) == 1 else "dense"
    return f"{'depthwise' if 'depthwise' in where else dense}, {which[0].replace('_', ' ')}"


def times_in(trace: Path, program: Mapping[str, Instruction]) -> dict[str, float]:
    """Nanoseconds in a trace of a program by HLO instruction, less those of instructions inside it.

    On the CPU, Eigen's convolutions and products of matrices go on after their event has ended: a
    time in which nothing is written down belongs to the one of them that began last.
    """
    from jax.profiler import ProfileData

    planes = list(ProfileData.from_file(str(trace)).planes)
    # Where there is an accelerator, the host's events are of starting what runs there.
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices or planes for line in plane.lines]
    operations = [line for line in lines if line.name == "XLA Ops"]
    found: dict[str, float] = collections.defaultdict(float)
    everywhere: list[tuple[float, float, str]] = []
    for line in operations or lines:
        events = [
            (event.start_ns, -event.duration_ns, name)
            for event in line.events
            if (name := instruction_of(event)) in program
        ]
        everywhere += events
        open_until: list[tuple[float, str]] = []
        for start, minus_duration, name in sorted(events):
            while open_until and open_until[-1][0] <= start:
                open_until.pop()
            if open_until:
                found[open_until[-1][1]] += minus_duration
            found[name] -= minus_duration
            open_until.append((start - minus_duration, name))
    if not devices:
        known_until, running = 0.0, ""
        for (start, minus_duration, name), (then, *_) in itertools.pairwise(sorted(everywhere)):
            known_until = max(known_until, start - minus_duration)
            if program[name].opcode in ("convolution", "dot"):
                running = name
            if running:
                found[running] += max(0, then - known_until)
    return dict(found)


def instruction_of(event: Any) -> str:
    """The HLO instruction of an event; on a GPU, whose kernels have other names, from its stats."""
    stats = {key: value for key, value in event.stats if key == "hlo_op"}
    return str(stats.get("hlo_op", event.name))


def category_of_operator(name: str, shapes: list[Any]) -> str:
    """The category of one of PyTorch's operators, from the shapes of its arguments."""
    if "convolution" in name or "conv2d" in name or "conv_depthwise" in name:
        backward = "backward" in name
        which = f"{TO_INPUT} and of kernel" if backward else FORWARD
        four = [shape for shape in shapes if len(shape) == 4]
        if len(four) < 2:
            return REST
        # Backward, the gradient of the output comes first.
        picture, kernel = four[-2:] if backward else four[:2]
        if picture[2:] == [1, 1]:
            return SQUEEZE
        dense = "1x1" if kernel[2:] == [1, 1] else "dense"
        return f"{'depthwise' if dense == 'dense' and kernel[1] == 1 else dense}, {which}"
    if "batch_norm" in name:
        return "BatchNorm"
    gate = any(len(shape) == 4 and shape[2:] == [1, 1] for shape in shapes)
    if "silu" in name:
        return SQUEEZE if gate else "SiLU"
    if "Optimizer" in name or "_fused_sgd" in name:
        return OPTIMIZER
    if "sigmoid" in name or "mean" in name or (gate and "mul" in name):
        return SQUEEZE
    if any(len(shape) == 4 for shape in shapes):
        return ELEMENTWISE
    return REST


if __name__ == "__main__":
    main()
