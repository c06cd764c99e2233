"""What a run leaves in its working directory: checkpoints, config and class names, metrics."""
