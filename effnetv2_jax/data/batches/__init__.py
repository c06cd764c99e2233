"""From a source to batches: the examples' order, and the threads and processes that decode."""
