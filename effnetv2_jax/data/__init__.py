"""Pictures on the host: sources, decoding and batches, without JAX.

`open_source` opens what a `DataConfig` names, `train_batches` and `eval_batches` turn it into
batches of `uint8` images.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnetv2_jax.data.examples import Batch as Batch
    from effnetv2_jax.data.model_input import preprocess as preprocess
    from effnetv2_jax.data.pipeline import eval_batches as eval_batches
    from effnetv2_jax.data.pipeline import example_keys as example_keys
    from effnetv2_jax.data.pipeline import train_batches as train_batches
    from effnetv2_jax.data.record import DataError as DataError
    from effnetv2_jax.data.record import DecodeError as DecodeError
    from effnetv2_jax.data.record import Record as Record
    from effnetv2_jax.data.record import Source as Source
    from effnetv2_jax.data.sources import open_source as open_source
    from effnetv2_jax.data.unreadable import Unreadable as Unreadable
    from effnetv2_jax.data.workers import Workers as Workers
    from effnetv2_jax.data.workers import make_workers as make_workers

# Loaded on first use: decoding one picture needs neither Grain nor TFDS, which take seconds.
_HOME = {
    "Batch": "examples",
    "eval_batches": "pipeline",
    "example_keys": "pipeline",
    "train_batches": "pipeline",
    "preprocess": "model_input",
    "DataError": "record",
    "DecodeError": "record",
    "Record": "record",
    "Source": "record",
    "open_source": "sources",
    "Unreadable": "unreadable",
    "Workers": "workers",
    "make_workers": "workers",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
