"""Says in what two runs differ: how they were made, what happened to them, what came out.

    python -m effnetv2_jax.compare runs/a runs/b
    python -m effnetv2_jax.compare runs/a@best runs/b@1234

Ends with 0 if both came to the same parameters by the same metrics, 4 if not (or if one has not
come to its end), 1 if there are no two runs to compare, 2 if the command line makes no sense.
"""

import argparse
import sys
from collections.abc import Sequence

from effnetv2_jax.cli.errors import complain
from effnetv2_jax.outputs.comparison import comparison
from effnetv2_jax.outputs.errors import CheckpointError
from effnetv2_jax.outputs.workdir import WorkdirError

DIFFERENT = 4
"""Exit status where the results differ."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m effnetv2_jax.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in "AB":
        parser.add_argument(f"run_{name}".lower(), metavar=f"RUN_{name}", help="a run's --workdir")
    options = parser.parse_args(arguments)
    try:
        text, differs = comparison(options.run_a, options.run_b)
    except (WorkdirError, CheckpointError) as error:
        return complain(error)
    print(text)
    return DIFFERENT if differs else 0


if __name__ == "__main__":
    sys.exit(main())
