"""The measured part of docs/speed_vs_size.md, and its pictures, from experiments/results."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import NETWORKS, Network, Phase

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "speed_vs_size.md"
PICTURES = PAGE.with_suffix("")
RESULTS = ROOT / "experiments" / "results"
BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"
"""Between these the page is written anew; the rest is by hand."""


COLUMNS = (
    "| network | top-1, published | M parameters | GMACs | M activations | trained at | images/s "
    "of a training step | device-hours that follow | hours, published | inference at | images/s |"
)
UNTIMED: dict[str, Any] = {"runs": {}}
BOUND = (
    "The bound is the time that operations or memory traffic alone take at the device's best: no "
    "step is faster, and most are slower."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says of two networks, or of one and a network that is not here."""

    text: str
    ours: str
    """A key of `NETWORKS`, as is the other."""
    other: str
    quantity: str
    """`hours` or `parameters`."""
    published: float
    """The other's over ours."""


CLAIMS = (
    Claim("V2-S trains faster than B5, at 83.9 and 83.7 %", "v2-s", "b5", "hours", 43 / 7.1),
    Claim(
        "V2-M trains 11 times as fast as B7, at 85.1 and 84.7 %", "v2-m", "b7", "hours", 139 / 13
    ),
    Claim("V2-S is smaller than B5", "v2-s", "b5", "parameters", 30 / 22),
    Claim("V2-M is smaller than B7", "v2-m", "b7", "parameters", 66 / 54),
    Claim(
        "V2-S is 6.8 times smaller than ResNet-RS-350", "v2-s", "resnetrs350-288", "parameters", 6.8
    ),
    Claim("V2-L with ImageNet21k against ViT-L/16", "v2-l-21k", "vit-l16-384-21k", "hours", 5.0),
    Claim("V2-XL with ImageNet21k against ViT-L/16", "v2-xl-21k", "vit-l16-384-21k", "hours", 5.0),
    Claim(
        "V2-XL is smaller than ViT-L/16", "v2-xl-21k", "vit-l16-384-21k", "parameters", 304 / 208
    ),
)
"""The paper states 5 to 11 times for the networks with ImageNet21k together; 5 is its least."""


def write_page() -> None:
    """Writes the page's measured part and the pictures."""
    parts = []
    for path in sorted(RESULTS.glob("speed_vs_size_*.json")):
        content = json.loads(path.read_text())
        parts += [f"## {path.stem.removeprefix('speed_vs_size_')}", about(content)]
        if content["networks"]:
            parts += ["\n".join(table(content)), "\n".join(claims(content))]
            for kind in ("hours", "parameters"):
                picture = PICTURES / f"{path.stem}_{kind}.png"
                if draw(content, kind, picture):
                    parts.append(f"![{kind}]({picture.relative_to(PAGE.parent)})")
        parts += ["\n".join(compiled(name, each)) for name, each in content["compiled"].items()]
        if content["failed"]:
            failed = (f"- {name}: {why.splitlines()[0]}" for name, why in content["failed"].items())
            parts.append("Not measured:\n\n" + "\n".join(failed))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")


def about(content: Mapping[str, Any]) -> str:
    """On what it was measured, and how busy that was."""
    loads = [
        load
        for network in content["networks"].values()
        for side in network["sides"].values()
        for load in side["loads"]
    ]
    busy = f"; load average {min(loads):g} to {max(loads):g} meanwhile" if loads else ""
    names = ("devices", "cpu", "cores", "date", "command")
    told = (f"{name}: {content[name]}" for name in names if name in content)
    return f"{'; '.join(told)}{busy}."


def rate(network: Network, found: Mapping[str, Any], kind: str, size: int) -> float | None:
    """Images per second, the median over passes and rounds at the largest batch."""
    runs = found["runs"]
    prefix = f"{kind} {size} px, batch "
    batches = [int(name.removeprefix(prefix)) for name in runs if name.startswith(prefix)]
    if not batches:
        return None
    rounds = runs[f"{prefix}{max(batches)}"]
    return statistics.median(value for one in rounds for value in one)


def training_seconds(network: Network, found: Mapping[str, Any]) -> float | None:
    """The whole training on this device, without evaluation; None where a size is missing.

    The time of an image is taken to be linear in its pixels, between the sizes that were timed.
    """
    rates = {size: rate(network, found, "train", size) for size in network.timed_sizes}
    known = [(size**2, 1 / value) for size, value in rates.items() if value]
    if len(known) < len(rates):
        return None

    def seconds(size: int) -> float:
        if value := rates.get(size):
            return 1 / value
        (low, fast), (high, slow) = known[0], known[-1]
        return fast + (slow - fast) * (size**2 - low) / (high - low)

    def of(phase: Phase) -> float:
        each = statistics.fmean(seconds(size) for size in phase.sizes)
        return phase.epochs * phase.images * each

    return sum(of(phase) for phase in network.phases)


def measured(content: Mapping[str, Any]) -> Iterator[tuple[Network, Mapping[str, Any]]]:
    """The networks of a result, with what was counted and timed."""
    for key, network in NETWORKS.items():
        if (found := content["networks"].get(key)) is not None:
            yield network, found


def table(content: Mapping[str, Any]) -> list[str]:
    """A row for each network."""
    rows = [
        COLUMNS,
        f"|{'---|' * 11}",
    ]
    for network, found in measured(content):
        ours, theirs = found["sides"].get("ours", UNTIMED), found["sides"].get("timm")
        sizes = network.timed_sizes

        def cell(kind: str, size: int) -> str:
            value = rate(network, ours, kind, size)  # noqa: B023
            other = theirs and rate(network, theirs, kind, size)  # noqa: B023
            return ("-" if value is None else f"{value:.3g}") + (
                f" (timm {other:.3g})" if other else ""
            )

        seconds = training_seconds(network, ours)
        cells = [
            network.key,
            f"{network.top1:g}",
            f"{found['parameters'] / 1e6:.1f}",
            f"{found['macs'] / 1e9:.2f}",
            f"{found['activations'] / 1e6:.1f}",
            ", ".join(f"{size}" for size in sizes),
            ", ".join(cell("train", size) for size in sizes),
            "-" if seconds is None else f"{seconds / 3600:,.0f}",
            "-" if network.hours is None else f"{network.hours:g}",
            f"{network.eval_size}",
            cell("inference", network.eval_size),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def claims(content: Mapping[str, Any]) -> list[str]:
    """The paper's claims, each with its ratio here."""
    found = dict(measured(content))
    by_key = {network.key: (network, each) for network, each in found.items()} if found else {}
    rows = ["| the paper's claim | published ratio | ratio here |", "|---|---|---|"]
    for claim in CLAIMS:
        pair = [by_key.get(key) for key in (claim.ours, claim.other)]
        here = "not measured"
        if pair[0] and pair[1]:
            values = [value_of(claim.quantity, *each) for each in pair if each]
            if values[0] and values[1]:
                here = f"{values[1] / values[0]:.2f}"
        rows.append(f"| {claim.text} ({claim.quantity}) | {claim.published:.2g} | {here} |")
    return rows


def value_of(quantity: str, network: Network, found: Mapping[str, Any]) -> float | None:
    """Hours of training on this device, or parameters."""
    if quantity == "parameters":
        return float(found["parameters"])
    seconds = training_seconds(network, found["sides"].get("ours", UNTIMED))
    return None if seconds is None else seconds / 3600


def compiled(title: str, found: Mapping[str, Any]) -> list[str]:
    """What the compiler says of training steps for devices that are not here."""
    rows = [
        f"Compiled for {title}. {BOUND}",
        "",
        "| network | GFLOP an image | MB an image | GiB a device | bound, images/s a device | by |",
        "|---|---|---|---|---|---|",
    ]
    for name, cost in found.items():
        bound = cost["bound"]
        cells = [
            name,
            f"{(cost['flops'] or 0) / 1e9:.1f}",
            f"{(cost['bytes'] or 0) / 1e6:.0f}",
            f"{cost['memory'] / 2**30:.2f}" + ("" if cost["fits"] else ", does not fit"),
            "-" if bound is None else f"{1 / bound['seconds']:,.0f}",
            "-" if bound is None else bound["by"],
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def draw(content: Mapping[str, Any], quantity: str, path: Path) -> bool:
    """Published top-1 against what was measured; False with fewer than two networks."""
    import matplotlib.pyplot as plt

    points: dict[str, list[tuple[float, float, str]]] = {}
    for network, found in measured(content):
        if value := value_of(quantity, network, found):
            points.setdefault(network.family, []).append((value, network.top1, network.key))
    if sum(map(len, points.values())) < 2:
        return False
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for family, each in points.items():
        plot_family(axes, family, sorted(each))
    axes.set_xscale("log")
    axes.set_xlabel(
        "parameters" if quantity == "parameters" else "device-hours of training that follow"
    )
    axes.set_ylabel("ImageNet top-1, published (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def plot_family(axes: Any, family: str, points: Sequence[tuple[float, float, str]]) -> None:
    """A line through a family's networks."""
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-", label=family)
    for x, y, name in points:
        axes.annotate(name, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
