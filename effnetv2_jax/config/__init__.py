"""What a run is: its fields, how they are read and checked, and the recipes of the paper."""

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    Experiment,
    FaultsConfig,
    LogConfig,
    ProbeConfig,
)
from effnetv2_jax.config.optimizers import LAMB, SGD, AdamW, Lion, RMSProp
from effnetv2_jax.config.schedules import Constant, Cosine, Exponential, WarmupStableDecay

__all__ = [
    "LAMB",
    "SGD",
    "AdamW",
    "AugmentConfig",
    "CheckpointConfig",
    "ConfigError",
    "Constant",
    "Cosine",
    "DataConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "Experiment",
    "Exponential",
    "FaultsConfig",
    "Lion",
    "LogConfig",
    "ProbeConfig",
    "RMSProp",
    "WarmupStableDecay",
]
