"""Writes a run's report: one page of HTML that needs no network, and the same in short as text."""

import functools
from collections.abc import Sequence
from typing import Any

import jinja2
from etils import epath

from effnetv2_jax.outputs.predictions import Predictions
from effnetv2_jax.outputs.progress import clock
from effnetv2_jax.outputs.report.contents import contents
from effnetv2_jax.outputs.report.curves import Curve, panel
from effnetv2_jax.outputs.report.facts import PAGE
from effnetv2_jax.outputs.report.gather import RunFiles, read_run_files
from effnetv2_jax.outputs.report.panels import axes, number, percent, points_of
from effnetv2_jax.outputs.storage import write_text

TEXT = "report.md"
_PALETTE = 6


def write_report(
    workdir: epath.PathLike, predicted: tuple[Predictions, list[str]] | None = None
) -> epath.Path:
    """Writes `report.html` and `report.md` from what lies in a workdir, and returns the page.

    Args:
      predicted: predictions and their files, for whoever has them; None reads them.

    Raises:
      WorkdirError: there is no run.
      OSError: they cannot be written.
    """
    run = read_run_files(workdir, predicted)
    shown = contents(run)
    for name in (PAGE, TEXT):
        write_text(run.workdir / name, _template(name).render(it=shown, run=run))
    return run.workdir / PAGE


def write_comparison(
    workdirs: Sequence[epath.PathLike], differences: Sequence[str], path: epath.Path
) -> None:
    """Writes a page with several runs side by side.

    Args:
      differences: in what they differ, a line each.
      path: of the page.

    Raises:
      WorkdirError: there is no run in one of them.
      OSError: it cannot be written.
    """
    runs = [read_run_files(workdir) for workdir in workdirs]
    sides = [contents(run) for run in runs]
    by_name = [
        {row.name: row for row in side.classes.rows} if side.classes else {} for side in sides
    ]
    classes = list(dict.fromkeys(name for rows in by_name for name in rows))
    text = _template("comparison.html").render(
        sides=sides,
        panels=_overlaid(runs),
        differences=differences,
        recalls=[(name, [rows.get(name) for rows in by_name]) for name in classes],
    )
    write_text(path, text)


def _overlaid(runs: Sequence[RunFiles]) -> list[Any]:
    """The curves of all runs over steps."""
    found = []
    for title, label, kind, of in (
        ("accuracy on held-out pictures", percent, "eval", "top1"),
        ("mean average precision on held-out pictures", percent, "eval", "map"),
        ("loss on held-out pictures", number, "eval", "loss"),
        ("loss in training", number, "train", "loss"),
        ("learning rate", number, "train", "learning_rate"),
    ):
        drawn = []
        for index, run in enumerate(runs):
            name = f"{run.judged_by}_{of}" if kind == "eval" else of
            points = points_of(run, axes(run)[0], kind, name)
            if points:
                drawn.append(Curve(str(run.workdir), index % _PALETTE, points, kind == "eval"))
        if drawn:
            found.append(panel(title, drawn, label=label, x_label=axes(runs[0])[0].label))
    return found


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("effnetv2_jax.outputs.report", "templates"),
        # Names of classes and files are anybody's; only the text has no markup.
        autoescape=lambda name: name is None or not name.startswith(TEXT),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": _percent,
        "clock": clock,
        "plain": _plain,
    }
    return environment


def _percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}"


def _plain(text: object) -> str:
    """A name in a table of Markdown, which it cannot leave."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in line)


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(f"{name}.j2")
