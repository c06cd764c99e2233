"""Pictures on the host, from stored data sets to batches of `uint8` images, without JAX.

`sources` reads labelled, encoded pictures from data sets and folders, one by one. `pictures` turns
one encoded picture into an array: decoding, cropping, resizing. `batches` puts examples into a
run's order and makes batches of them in threads or processes. `prepare` is a command that converts
folders and TFRecord files to ArrayRecord.

`open_source` and `open_sources` open what a `DataConfig` names; `make_batches` makes the batches
that `TrainExamples` or `EvalExamples` describe.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnetv2_jax.data.batches.examples import EvalExamples as EvalExamples
    from effnetv2_jax.data.batches.examples import HostBatch as HostBatch
    from effnetv2_jax.data.batches.examples import TrainExamples as TrainExamples
    from effnetv2_jax.data.batches.order import Order as Order
    from effnetv2_jax.data.batches.pipeline import example_keys as example_keys
    from effnetv2_jax.data.batches.pipeline import make_batches as make_batches
    from effnetv2_jax.data.batches.unreadable import Unreadable as Unreadable
    from effnetv2_jax.data.batches.workers import Workers as Workers
    from effnetv2_jax.data.batches.workers import make_workers as make_workers
    from effnetv2_jax.data.pictures.model_input import preprocess as preprocess
    from effnetv2_jax.data.record import DataError as DataError
    from effnetv2_jax.data.record import DecodeError as DecodeError
    from effnetv2_jax.data.record import Record as Record
    from effnetv2_jax.data.record import Source as Source
    from effnetv2_jax.data.sources.open import open_source as open_source
    from effnetv2_jax.data.sources.open import open_sources as open_sources

# Loaded on first use: decoding one picture does not need TFDS, which takes seconds.
_HOME = {
    "EvalExamples": "batches.examples",
    "HostBatch": "batches.examples",
    "TrainExamples": "batches.examples",
    "Order": "batches.order",
    "example_keys": "batches.pipeline",
    "make_batches": "batches.pipeline",
    "preprocess": "pictures.model_input",
    "DataError": "record",
    "DecodeError": "record",
    "Record": "record",
    "Source": "record",
    "open_source": "sources.open",
    "open_sources": "sources.open",
    "Unreadable": "batches.unreadable",
    "Workers": "batches.workers",
    "make_workers": "batches.workers",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
