"""What a search will do, and what it found, in words."""

import collections
import statistics
from collections.abc import Sequence

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.report import survey
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.records import Result, read_trials
from effnetv2_jax.nas.space import Space, size
from effnetv2_jax.outputs.progress import clock
from effnetv2_jax.outputs.table import align
from effnetv2_jax.outputs.workdir import read_winner, workdir_path

_WORKERS = (1, 2, 8, 64)


def describe_space(search: Search) -> str:
    """The choices as a table, and how many ways there are to choose."""
    rows = [("choose", "among"), *_rows(search.space)]
    return "\n".join(
        [*align(rows, left=2), f"{size(search.space):,} candidates, of which {search.trials:,} run"]
    )


def _rows(space: Space) -> list[tuple[str, str]]:
    """Choices with the same values in one row."""
    alike: dict[tuple[str, ...], list[str]] = collections.defaultdict(list)
    for choice in space:
        parts = choice.name.split(".")
        values = ", ".join(map(str, choice.labels))
        alike[(".".join([parts[0], *(_bare(part) for part in parts[1:])]), values)].append(
            choice.name
        )
    return [
        (names[0] if len(names) == 1 else f"{bare} of {len(names)} rows", values)
        for (bare, values), names in alike.items()
    ]


def _bare(part: str) -> str:
    return part.partition("[")[0] + ("[...]" if "[" in part else "")


def describe_search(search: Search, workdir: str) -> str:
    """The plan: the space, what a trial is, and how long all of them take.

    A time is only known from trials that ran: those of the study in `workdir`, if there are any.

    Raises:
      DataError: the data has to be counted and is missing.
      StudyError: what is in `workdir` makes no sense.
    """
    lines = [describe_space(search), "", "A trial:", *_trial(search.experiment)]
    if search.finals:
        lines.append(
            f"Finals: the best {search.finals}, {search.finals_seeds} times each with other seeds, "
            f"for {search.finals_epochs:g} times the epochs, as much training as "
            f"{search.finals * search.finals_seeds * search.finals_epochs:g} trials"
        )
    done = _results(workdir) if workdir else []
    seconds = [result.seconds for result in done if result.complete]
    if not seconds:
        lines.append(
            "How long a trial takes shows when one has run: this plan then says it for all, from "
            "the study in --workdir"
        )
        return "\n".join(lines)
    mean = statistics.fmean(seconds)
    rest = max(0, search.trials - len(done))
    lines.append(
        f"The {len(seconds)} trials that were scored took {clock(mean)} each; the other {rest} take"
    )
    lines += [
        f"  {clock(rest * mean / workers)} with {workers} worker{'s' if workers > 1 else ''}"
        for workers in _WORKERS
    ]
    return "\n".join(lines)


def _trial(experiment: Experiment) -> list[str]:
    # Imported here, as the first words of a search must not wait for JAX.
    from effnetv2_jax.models.complexity import complexity
    from effnetv2_jax.train.state import build_model

    data = survey(experiment.data)
    plan = experiment.plan(data.examples)
    model = build_model(experiment, data.classes)
    rows: list[Sequence[str]] = [("stage", "size", "steps", "batch", "GMACs of the reference")]
    work = 0.0
    for planned in plan.stages:
        steps = planned.end_step - planned.first_step
        pixels = planned.stage.image_size
        macs = complexity(model, height=pixels, width=pixels).macs
        work += 3.0 * macs * steps * planned.batch_size
        rows.append(
            (
                f"{planned.index + 1}/{len(plan.stages)}",
                str(pixels),
                f"{steps:,}",
                f"{planned.batch_size:,}",
                f"{macs / 1e9:.3g}",
            )
        )
    total = (
        f"{experiment.epochs:g} epochs of {data.examples:,} examples, {work / 1e12:.3g} TMACs of "
        "the reference, forward and backward"
    )
    return [f"  {line}" for line in (*align(rows), total)]


def _results(workdir: str) -> list[Result]:
    return list(read_trials(workdir_path(workdir))[1].values())


def describe_winner(workdir: str) -> str:
    """What won in a study, and how to go on with it."""
    winner = read_winner(workdir_path(workdir))
    if winner is None:
        return f"{workdir}: nothing has won yet"
    result = winner["result"]
    best = (
        f"best: trial {winner['trial']}, top-1 {result['accuracy']:.2%}, "
        f"reward {result['reward']:.4f}, {result['parameters'] / 1e6:.3g} M parameters; "
        f"{workdir}/{winner['workdir']}"
    )
    lines = [best]
    lines += [
        f"  {field} = {value}"
        for field, value in winner["settings"].items()
        if not field.startswith("model.stages[")  # The table says it better.
    ]
    if winner["row"]:
        lines += ["as a table:", winner["row"]]
        lines.append(
            "train it: python -m effnetv2_jax.main --config=CONFIG --config.model.stages="
            f"{workdir} --workdir=RUN"
        )
    lines.append(f"its weights: --config.init={workdir}, load_pretrained(None, {workdir!r})")
    return "\n".join(lines)
