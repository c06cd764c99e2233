"""Weights, in and out: runs of our own as they are, other libraries' by the family's names.

`find` says where weights are, `found` what they are, `pretrained` fits them to a model and `save`
writes them. What a family is called elsewhere, `effnetv2_jax.models.libraries` asks of it.
"""
