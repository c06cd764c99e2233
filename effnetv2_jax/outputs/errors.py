"""What goes wrong with checkpoints, known without Orbax."""


class CheckpointError(RuntimeError):
    """Nothing to restore or that fits, or no way to save; the message names the directory."""
