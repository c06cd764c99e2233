"""Augmentation on the device: pure functions of a PRNG key, jitted with the training step."""

from effnetv2_jax.augment.autoaugment import autoaugment
from effnetv2_jax.augment.batch import augment_batch, normalize
from effnetv2_jax.augment.erasing import erase
from effnetv2_jax.augment.geometry import cutout
from effnetv2_jax.augment.increasing import increasing
from effnetv2_jax.augment.mixing import MixedBatch, mix
from effnetv2_jax.augment.operations import OPERATIONS, apply_operation
from effnetv2_jax.augment.randaugment import randaugment

__all__ = [
    "OPERATIONS",
    "MixedBatch",
    "apply_operation",
    "augment_batch",
    "autoaugment",
    "cutout",
    "erase",
    "increasing",
    "mix",
    "normalize",
    "randaugment",
]
