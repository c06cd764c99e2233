"""What goes wrong with weights."""


class WeightsError(ValueError):
    """Weights that cannot be had, read or fitted; the message names them and says what to do."""
