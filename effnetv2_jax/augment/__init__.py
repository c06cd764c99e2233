"""Augmentation on the device: pure functions of a PRNG key, jitted with the training step."""

from effnetv2_jax.augment.batch import augment_batch, normalize
from effnetv2_jax.augment.geometry import cutout
from effnetv2_jax.augment.mixing import MixedBatch, mix
from effnetv2_jax.augment.policies import OPERATIONS, apply_operation, randaugment

__all__ = [
    "OPERATIONS",
    "MixedBatch",
    "apply_operation",
    "augment_batch",
    "cutout",
    "mix",
    "normalize",
    "randaugment",
]
