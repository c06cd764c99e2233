"""The model family as Flax Linen modules; `effnetv2_jax` offers its public names.

Nothing is imported here, so that the tables of `variants` can be read without JAX.
"""
