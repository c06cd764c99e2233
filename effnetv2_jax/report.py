"""Writes the report of a run or of a search, or a page with several runs side by side.

    python -m effnetv2_jax.report runs/mine
    python -m effnetv2_jax.report runs/a runs/b --output=comparison.html

A run writes RUN/report.html by itself at every evaluation. This writes it anew: from what the run
left, or with --evaluate, and where nothing was left, from an evaluation of its newest checkpoint.
A search writes STUDY/report.html likewise, and RUN may be its study.

Ends with 0, or with 1 if there is no run or it cannot be evaluated.
"""

import argparse
import sys
from collections.abc import Sequence

from effnetv2_jax.cli.errors import complain
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.nas.records import SEARCH, StudyError
from effnetv2_jax.outputs.errors import CheckpointError
from effnetv2_jax.outputs.report.facts import FACTS
from effnetv2_jax.outputs.workdir import WorkdirError, read_config, workdir_path
from effnetv2_jax.weights.errors import WeightsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m effnetv2_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's or a search's --workdir")
    parser.add_argument(
        "--output",
        metavar="FILE",
        default="comparison.html",
        help="of several runs: where the page goes (default: %(default)s)",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the newest checkpoint, whatever the run left",
    )
    options = parser.parse_args(arguments)
    try:
        for run in options.runs:
            _write(run, evaluate=options.evaluate)
        if len(options.runs) > 1:
            _compare(options.runs, options.output)
    except (
        WorkdirError,
        StudyError,
        ConfigError,
        CheckpointError,
        WeightsError,
        OSError,
    ) as error:
        return complain(error)
    return 0


def _write(run: str, *, evaluate: bool) -> None:
    # Imported here, so that a mistyped option is answered at once.
    from effnetv2_jax.nas.report.page import write_study_report
    from effnetv2_jax.outputs.report.page import write_report

    workdir = workdir_path(run)
    if (workdir / SEARCH).exists():
        print(write_study_report(workdir))
        return
    read_config(workdir)  # Whether it is a run at all.
    if evaluate or not (workdir / FACTS).exists():
        from effnetv2_jax.data import DataError
        from effnetv2_jax.parallel import startup
        from effnetv2_jax.train.report_run import report_run

        startup.start("off")
        try:
            report_run(workdir, _say)
        except DataError as error:
            _say(f"without what only the data say: {error}")
    print(write_report(workdir))


def _compare(runs: Sequence[str], output: str) -> None:
    from effnetv2_jax.outputs.comparison import compare_runs
    from effnetv2_jax.outputs.report.page import write_comparison

    first, *others = runs
    differences = [
        f"{first} -> {other}: {difference}"
        for other in others
        for difference in compare_runs(first, other)
        if difference.subject in ("config", "classes", "data")
    ]
    write_comparison(runs, differences, workdir_path(output))
    print(output)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
