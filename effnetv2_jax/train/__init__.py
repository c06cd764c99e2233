"""Training: state, optimizer, one step, and the loop that calls it."""
