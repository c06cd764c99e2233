"""What goes wrong with command lines, and how a command says that something did."""

import sys


class CommandError(ValueError):
    """A command line that cannot be understood; the message says what is wrong with it."""

    exit_status = 2


def complain(error: Exception) -> int:
    """Prints an error that somebody has to mend, and returns the exit status for its kind.

    That is the error's `exit_status`, or else 1: what was asked for makes sense and cannot be had,
    as with missing data or weights, or a working directory of another run.
    """
    print(f"error: {error}", file=sys.stderr)
    return int(getattr(error, "exit_status", 1))
