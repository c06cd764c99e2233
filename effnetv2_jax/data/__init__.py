"""Pictures on the host: sources, decoding and batches, without JAX.

`open_source` opens what a `DataConfig` names, `train_batches` and `eval_batches` turn it into
batches of `uint8` images.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnetv2_jax.data.batches.examples import Batch as Batch
    from effnetv2_jax.data.batches.pipeline import eval_batches as eval_batches
    from effnetv2_jax.data.batches.pipeline import example_keys as example_keys
    from effnetv2_jax.data.batches.pipeline import train_batches as train_batches
    from effnetv2_jax.data.batches.unreadable import Unreadable as Unreadable
    from effnetv2_jax.data.batches.workers import Workers as Workers
    from effnetv2_jax.data.batches.workers import make_workers as make_workers
    from effnetv2_jax.data.pictures.model_input import preprocess as preprocess
    from effnetv2_jax.data.record import DataError as DataError
    from effnetv2_jax.data.record import DecodeError as DecodeError
    from effnetv2_jax.data.record import Record as Record
    from effnetv2_jax.data.record import Source as Source
    from effnetv2_jax.data.sources.open import open_source as open_source

# Loaded on first use: decoding one picture needs neither Grain nor TFDS, which take seconds.
_HOME = {
    "Batch": "batches.examples",
    "eval_batches": "batches.pipeline",
    "example_keys": "batches.pipeline",
    "train_batches": "batches.pipeline",
    "preprocess": "pictures.model_input",
    "DataError": "record",
    "DecodeError": "record",
    "Record": "record",
    "Source": "record",
    "open_source": "sources.open",
    "Unreadable": "batches.unreadable",
    "Workers": "batches.workers",
    "make_workers": "batches.workers",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
