"""What goes wrong with command lines."""


class CommandError(ValueError):
    """A command line that cannot be understood; the message says what is wrong with it."""
