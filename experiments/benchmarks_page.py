"""Writes docs/benchmarks.md and its plots from the measurements in experiments/results/.

    python experiments/benchmarks_page.py

A result is a JSON object: some keys say on what it was measured, the rest is shown as tables,
whatever it is. A number and its `NAME_range`, or an object of `median` and `range`, are shown as
one; a number called `..._over_...`, or one in an object called `..._over`, is a ratio, and is
plotted as well. Needs matplotlib.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = PAGE.with_suffix("")
TIMES = "Ratios are of times: below 1, the former is faster."
SPEEDS = "Ratios are of speeds: above 1, the former is faster."
TITLES = {
    "train_throughput": (
        "The training loop",
        "Images per second of the whole loop, beside its step alone on a batch that is there.",
        "The nearer to 1, the less the loop adds.",
    ),
    "stage_switch": (
        "Switching stages, and starting again",
        "Stages that get ready ahead, beside ones that begin cold; a warm cache, beside an empty.",
        TIMES,
    ),
    "step_vs_timm": (
        "A training step, beside timm",
        "The same network and batch, forward, backward and optimizer, on the CPU.",
        TIMES,
    ),
    "gpu_step_vs_timm": (
        "A training step on a GPU, beside timm",
        "The same network and batch, forward, backward and optimizer.",
        SPEEDS,
    ),
    "inference_vs_timm": (
        "Inference, beside timm",
        "The same network and batch in memory, forward only, on the CPU.",
        TIMES,
    ),
    "predict_vs_timm": (
        "Classifying picture files, beside timm",
        "From files to the five best classes.",
        SPEEDS,
    ),
    "input_vs_timm": (
        "Reading pictures, beside timm",
        "Training images that the host makes of the same JPEG files.",
        SPEEDS,
    ),
    "conv_ops": (
        "Convolutions",
        "Single convolutions and their gradients on the CPU, beside XLA's own and PyTorch's.",
        TIMES,
    ),
    "tpu_bytes": (
        "Memory traffic on a TPU, beside plain Flax",
        "What the TPU compiler counts of a training step that is compiled ahead of time.",
        "Ratios are of sizes: below 1, the former is smaller.",
    ),
    "scan_over_blocks": (
        "A scan over equal blocks",
        "The 14 equal blocks of EfficientNetV2-S's last stage, one after the other and as a scan.",
        "The scan compiles faster and needs more memory, which is why the package has none.",
    ),
    "search_growth": (
        "A search with many workers",
        "What the coordinator costs, and how long workers wait for it; the trials train nothing.",
        "Lower is better.",
    ),
    "checks": (
        "What the checks cost",
        "Training steps with what notices divergence, hangs and signals, and without.",
        TIMES,
    ),
}
"""By the beginning of the file's name: a heading, what is compared, and which way is better."""
ELSEWHERE = (
    "transfer_to_cifar10",
    "chaos_cpu",
    "soak_cpu",
    "mutated_pictures_cpu",
    "search_chaos_local",
    "search_chaos_ray",
    "small_folders_lite8",
    "small_folders_lite99",
    "small_folders_scratch8",
    "speed_vs_size_counts",
    "table_against_whole",
)
"""Results of studies, which have plots of their own, and of trials, which compare nothing."""
ABOUT = ("date", "devices", "cpu", "cores", "python", "versions", "command")
MOST_COLUMNS = 6
"""A table of more columns than this is turned on its side, if that makes it narrower."""
OURS, THEIRS = "tab:blue", "tab:orange"
HEAD = """# Benchmarks

Made by `python experiments/benchmarks_page.py` from `experiments/results/*.json`. Numbers are
medians, with the range over the rounds in brackets where there is one; ratios are taken within
each round, and the line in the plots is at 1. With `--apart` steps have one of the processors to
themselves, in place of an accelerator.
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A median and its range."""

    median: float
    low: float
    high: float


def main() -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(RESULTS))
    stale = {path.stem: path for path in PLOTS.glob("*.png")}
    for path in result_files(RESULTS):
        if ratios := dict(find_ratios(load(path))):
            plot(ratios, PLOTS / f"{path.stem}.png")
            stale.pop(path.stem, None)
    for path in stale.values():
        path.unlink()


def page(results: Path) -> str:
    """The whole page, as Markdown.

    Raises:
      KeyError: a file in `results` is not of those in `TITLES`.
    """
    files: dict[str, list[Path]] = {prefix: [] for prefix in TITLES}
    for path in result_files(results):
        files[prefix_of(path)].append(path)
    parts = [HEAD]
    for prefix, paths in files.items():
        if paths:
            title, compared, better = TITLES[prefix]
            parts += [f"## {title}\n", f"{compared} {better}\n", *map(section, paths)]
    return "\n".join(parts)


def result_files(results: Path) -> list[Path]:
    return sorted(path for path in results.glob("*.json") if path.stem not in ELSEWHERE)


def prefix_of(path: Path) -> str:
    """Which of `TITLES` a file belongs to."""
    for prefix in TITLES:
        if f"{path.stem}_".startswith(f"{prefix}_"):
            return prefix
    raise KeyError(f"{path} has no entry in TITLES of {Path(__file__).name}")


def load(path: Path) -> dict[str, Any]:
    """A result, with numbers and their ranges joined."""
    loaded: dict[str, Any] = with_ranges(json.loads(path.read_text()))
    return loaded


def section(path: Path) -> str:
    """One result: on what it was measured, its tables and its plot."""
    result = load(path)
    lines = [f"### `{path.name}`", "", *about(result)]
    lines += tables({name: value for name, value in result.items() if name not in ABOUT})
    if dict(find_ratios(result)):
        lines += [f"![Ratios of {path.stem}]({PLOTS.name}/{path.stem}.png)", ""]
    return "\n".join(lines)


def about(result: Mapping[str, Any]) -> list[str]:
    """The machine, versions, date and command in two paragraphs."""
    devices = result.get("devices", [])
    kinds = [f"{kind} ({devices.count(kind)})" for kind in dict.fromkeys(devices)]
    cores = f"{result['cores']} cores" if "cores" in result else None
    python = f"Python {result['python']}" if "python" in result else None
    versions = [f"{name} {version}" for name, version in result.get("versions", {}).items()]
    facts = [result.get("date"), *kinds, result.get("cpu"), cores, python, *versions]
    lines = [", ".join(escape(fact) for fact in facts if fact), ""]
    if "command" in result:
        lines += ["```", result["command"], "```", ""]
    return lines


def with_ranges(value: Any) -> Any:
    """Puts a `Measured` in the place of each number that comes with its range."""
    if isinstance(value, list):
        return [with_ranges(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"median", "range"}:
        return Measured(value["median"], *value["range"])
    found: dict[str, Any] = {}
    for name, each in value.items():
        of = name.removesuffix("_range")
        if f"{name}_range" in value and is_number(each):
            found[name] = Measured(each, *value[f"{name}_range"])
        elif of == name or not is_number(value.get(of)):
            found[name] = with_ranges(each)
    return found


def tables(value: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Lines with all of an object: what has rows as tables of their own, the rest as one."""
    with_rows = {name: each for name, each in value.items() if has_rows(each)}
    rest = flat({name: each for name, each in value.items() if name not in with_rows})
    if rest:
        if title:
            yield from (f"**{title}**", "")
        yield from table(["", ""], [[name, cell(each)] for name, each in rest.items()])
    for name, each in with_rows.items():
        below = joined(title, words(name))
        if isinstance(each, list):
            yield from table_of(below, each)
        elif any(has_rows(row) for row in each.values()):
            yield from tables(each, below)
        else:
            yield from table_of(below, [{"": words(key)} | row for key, row in each.items()])


def is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) for e in value)


def has_rows(value: Any) -> bool:
    """Whether it is a list of objects, or an object of objects, or has such a thing in it."""
    if not isinstance(value, dict) or not value:
        return is_rows(value)
    nested = value.values()
    return all(isinstance(each, dict) for each in nested) or any(map(has_rows, nested))


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without objects in it; their names are put in front of what they hold.

    Lists of objects are left out.
    """
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, dict):
            found |= {joined(words(name), below): last for below, last in flat(each).items()}
        elif not is_rows(each):
            found[words(name)] = each
    return found


def lists_in(value: Mapping[str, Any], title: str) -> Iterator[tuple[str, list[Any]]]:
    """The lists of objects that `flat` leaves out, and a title for each."""
    for name, each in value.items():
        if is_rows(each):
            yield joined(title, words(name)), each
        elif isinstance(each, dict):
            yield from lists_in(each, joined(title, words(name)))


def table_of(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table with a row for each object, or a column for each where they have many fields."""
    flats = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flats for name in row))
    cells = [names, *([cell(row.get(name)) for name in names] for row in flats)]
    if len(names) > max(MOST_COLUMNS, len(cells)):
        cells = [list(column) for column in zip(*cells, strict=True)]
    yield from (f"**{title}**", "")
    yield from table(cells[0], cells[1:])
    for name, row in zip(row_names(rows), rows, strict=True):
        for below, nested in lists_in(row, joined(title, name)):
            yield from table_of(below, nested)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    numbers = [all(looks_like_number(row[i]) for row in rows) for i in range(len(head))]
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---:" if right else "---" for right in numbers) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def looks_like_number(text: str) -> bool:
    return text.removeprefix("-")[:1].isdigit() or text == "-"


def cell(value: Any) -> str:
    """A value in a table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case Measured(median, low, high):
            return f"{cell(median)} ({cell(low)} to {cell(high)})"
        case list():
            return ", ".join(map(cell, value))
    return escape(value)


def escape(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def words(name: str) -> str:
    """A key as it is shown."""
    return escape(name.replace("_over_", " / ").replace("_", " "))


def find_ratios(value: Any, where: str = "") -> Iterator[tuple[str, float | Measured]]:
    """Every ratio in a result, under what tells it from the others."""
    if is_rows(value):
        for name, row in zip(row_names(value), value, strict=True):
            yield from find_ratios(row, joined(where, name))
    if not isinstance(value, dict):
        return
    for name, each in value.items():
        if name.endswith("_over") and isinstance(each, dict):
            above = words(name.removesuffix("_over"))
            for below, number in each.items():
                if is_number(number):
                    yield joined(where, f"{above} / {words(below)}"), number
        elif "_over_" in name and is_number(each):
            yield joined(where, words(name)), each
        else:
            yield from find_ratios(each, joined(where, words(name)))


def joined(*names: str) -> str:
    return ", ".join(filter(None, names))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Measured) and not isinstance(value, bool)


def row_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names for rows, out of as few of their first fields as tell them apart."""
    flats = [flat(row) for row in rows]
    fields: list[str] = []
    for field in flats[0]:
        values = [cell(row.get(field)) for row in flats]
        if len(set(values)) > 1:
            fields.append(field)
        names = [" ".join(f"{f} {cell(row.get(f))}".strip() for f in fields) for row in flats]
        if len(set(names)) == len(names):
            return names
    return [f"row {index + 1}" for index in range(len(rows))]


def plot(ratios: Mapping[str, float | Measured], path: Path) -> None:
    """A bar for each ratio, beside a line at 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = [r if isinstance(r, Measured) else Measured(r, r, r) for r in ratios.values()]
    medians = [each.median for each in measured]
    below = [max(0.0, each.median - each.low) for each in measured]
    above = [max(0.0, each.high - each.median) for each in measured]
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.32 * len(ratios)), layout="constrained")
    places = range(len(ratios))
    axes.barh(places, medians, height=0.6, color=OURS, zorder=2)
    axes.errorbar(
        medians, places, xerr=[below, above], fmt="none", ecolor="black", lw=1, capsize=2, zorder=4
    )
    axes.axvline(1, color=THEIRS, lw=2, zorder=3)
    right = max(1.0, *(each.high for each in measured))
    for place, each in zip(places, measured, strict=True):
        axes.text(each.high + 0.015 * right, place, cell(each.median), va="center", fontsize=8)
    axes.set_yticks(places, list(ratios), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * right)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
