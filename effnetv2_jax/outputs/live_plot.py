"""A figure in a notebook that grows with a run."""

from collections.abc import Mapping
from typing import Any

from effnetv2_jax.outputs.callbacks import Callback, Numbers


class LivePlot(Callback):
    """Draws loss, accuracy and learning rate in a notebook, anew with every row of the log.

    `effnetv2_jax.train(..., callbacks=[effnetv2_jax.LivePlot()])`. A run that continues in the same
    notebook goes on in the same curves where it has the same object.

    Raises:
      ImportError: IPython or matplotlib is missing; `effnetv2_jax[notebooks]` brings both.
    """

    def __init__(self) -> None:
        try:
            import matplotlib.figure
            from IPython import display
        except ImportError as error:
            raise ImportError(
                f"LivePlot needs {error.name}: pip install effnetv2_jax[notebooks]"
            ) from error
        self._display = display.display
        self._figure_of = matplotlib.figure.Figure
        self._handle: Any = None
        self.rows: dict[str, list[tuple[int, Numbers]]] = {"train": [], "eval": []}

    def on_start(self, step: int, total_steps: int) -> None:
        """Forgets what came after the checkpoint that the run goes on from."""
        for kind, rows in self.rows.items():
            self.rows[kind] = [row for row in rows if row[0] <= step]
        self._handle = None

    def on_step_log(self, step: int, metrics: Numbers) -> None:
        self._add("train", step, metrics)

    def on_evaluation(self, step: int, result: Numbers) -> None:
        self._add("eval", step, result)

    def figure(self) -> Any:
        """The curves so far, as a matplotlib figure."""
        figure = self._figure_of(figsize=(11, 3), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        for axes, title in ((loss, "loss"), (accuracy, "accuracy (%)"), (rate, "learning rate")):
            axes.set(title=title, xlabel="step")
        self._plot(loss, "train", {"loss": "training"})
        self._plot(loss, "eval", {"raw_loss": "evaluation", "ema_loss": "evaluation, averaged"})
        for metric in ("top1", "map"):
            names = {f"raw_{metric}": "as trained last", f"ema_{metric}": "averaged weights"}
            self._plot(accuracy, "eval", names, scale=100.0)
        self._plot(rate, "train", {"learning_rate": ""})
        for axes in (loss, accuracy):
            if axes.lines:
                axes.legend()
        return figure

    def _plot(self, axes: Any, kind: str, names: Mapping[str, str], *, scale: float = 1.0) -> None:
        marker = "o" if kind == "eval" else None
        for name, label in names.items():
            points = [(step, scale * row[name]) for step, row in self.rows[kind] if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, label=label)

    def _add(self, kind: str, step: int, row: Numbers) -> None:
        self.rows[kind].append((step, row))
        figure = self.figure()
        if self._handle is None:
            self._handle = self._display(figure, display_id=True)
        else:
            self._handle.update(figure)
