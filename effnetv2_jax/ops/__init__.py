"""Numerical building blocks that know nothing of the network: pure functions on arrays."""
