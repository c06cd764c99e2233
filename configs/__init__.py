"""Experiments: each file returns one from get_config()."""
