"""What goes wrong with configs."""


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and says what to do."""

    exit_status = 2
