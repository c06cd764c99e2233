"""What a training step of a candidate costs: measured here, or compiled for a TPU."""
