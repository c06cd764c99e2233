"""Batches: their order, and the threads and processes that make them."""
