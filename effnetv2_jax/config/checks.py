"""Values of a config that have the right type and make no sense."""

import dataclasses
import math
import re

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.schedules import WarmupStableDecay

_PLACES = {
    "folder": "a folder of pictures",
    "csv": "a table of pictures",
    "huggingface": "a saved data set or the folder of Parquet files",
    "webdataset": "the folder of tar files",
}
"""What `data.path` is."""

OF_SOURCES = {
    "picture_key": ("csv", "tfrecord", "huggingface", "webdataset"),
    "label_key": ("csv", "tfrecord", "huggingface", "webdataset"),
    "split_key": ("csv",),
    "label_columns": ("csv",),
    "label_separator": ("csv", "webdataset"),
    "pictures": ("csv",),
    "labels": ("folder",),
    "header": ("csv",),
    "delimiter": ("csv",),
    "encoding": ("csv",),
    "files": ("tfrecord", "huggingface", "webdataset"),
}
"""Fields of `data` that some sources have."""


def check(experiment: Experiment) -> None:
    """Raises a ConfigError for values that have the right type and make no sense."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(f"config.{message}")

    for chosen, config in (
        ("model", experiment.model),
        ("optimizer", experiment.optimizer),
        ("schedule", experiment.schedule),
    ):
        for fault in config.faults():
            need(False, f"{chosen}.{fault}")

    model, smallest = experiment.model, experiment.model.MIN_SIZE
    need(bool(experiment.stages), "stages must hold at least one stage")
    for index, stage in enumerate(experiment.stages):
        at = f"stages[{index}]"
        size = stage.image_size
        need(size >= smallest, f"{at}.image_size is {size}; {smallest} is the least")
        need(0 < stage.share < math.inf, f"{at}.share must be above 0, not {stage.share}")
        need(0 <= stage.dropout_rate < 1, f"{at}.dropout_rate must be in [0, 1)")
        depth = stage.stochastic_depth_rate
        need(depth is None or 0 <= depth < 1, f"{at}.stochastic_depth_rate must be in [0, 1)")
        for name in ("randaugment_magnitude", "mixup_alpha", "cutmix_alpha"):
            need(getattr(stage, name) >= 0, f"{at}.{name} must not be negative")
        batch = stage.batch_size if stage.batch_size is not None else experiment.batch_size
        auto = stage.batch_size is None and batch == 0
        need(batch > 0 or auto, f"{at}.batch_size must be above 0, not {batch}")
        for name, examples in (
            ("model.bn_group", model.example_group),
            ("augment.mix_group", experiment.augment.mix_group),
        ):
            need(
                examples is None or (examples > 0 and batch % examples == 0),
                f"{name} is {examples}; it must divide {at}'s batch of {batch} examples",
            )
        parts, group = experiment.gradient_accumulation, model.example_group
        need(
            parts > 0 and batch % (parts * group) == 0,
            f"gradient_accumulation is {parts}; it must divide {at}'s batch of {batch} examples"
            + (f" into whole groups of model.bn_group={group}" if group > 1 else ""),
        )
    epochs = experiment.epochs
    probe = experiment.probe
    need(probe.views in (0, 1, 2), f"probe.views must be 0, 1 or 2, not {probe.views}")
    need(probe.l2 is None or probe.l2 > 0, f"probe.l2 must be above 0 or None, not {probe.l2}")
    need(
        not probe.views or experiment.loss == "softmax",
        f"probe.views fits a head by the softmax loss, and config.loss is {experiment.loss}",
    )
    least = "0 or more" if probe.views else "above 0"
    need(
        0 < epochs < math.inf or bool(epochs == 0 and probe.views),
        f"epochs must be {least} and not endless, not {epochs}",
    )
    need(experiment.min_steps >= 0, "min_steps must not be negative")
    patience = experiment.early_stopping.patience
    need(patience is None or patience > 0, "early_stopping.patience must be above 0 or None")
    need(experiment.early_stopping.min_gain >= 0, "early_stopping.min_gain must not be negative")
    schedule = experiment.schedule
    if isinstance(schedule, WarmupStableDecay):
        together = schedule.warmup_epochs + schedule.decay_epochs
        need(
            together <= epochs * (1 + 1e-9),
            f"schedule.warmup_epochs and decay_epochs are {together:g} together, more than the "
            f"run's {epochs:g}",
        )
    need(experiment.seed >= 0, f"seed must not be negative, it is {experiment.seed}")
    need(0 <= experiment.label_smoothing < 1, "label_smoothing must be in [0, 1)")
    decay = experiment.ema_decay
    need(decay is None or 0 <= decay < 1, f"ema_decay must be in [0, 1) or None, not {decay}")

    for index, (pattern, factor) in enumerate(experiment.rates):
        need(
            0 <= factor < math.inf, f"rates[{index}] must have a factor of 0 or more, not {factor}"
        )
        try:
            re.compile(pattern)
        except re.error as error:
            need(False, f"rates[{index}] has {pattern!r}, no regular expression: {error}")

    data = experiment.data
    need(data.source != "tfds" or bool(data.name), "data.name must name a TFDS set")
    for source, what in _PLACES.items():
        need(data.source != source or bool(data.path), f"data.path must name {what}")
    if data.source == "folder" and data.labels:
        table = dataclasses.replace(data, source="csv", labels="")
    else:
        table = data
    for name, sources in OF_SOURCES.items():
        need(
            getattr(table, name) in ("", (), "auto") or table.source in sources,
            f"data.{name} is of data.source={' or '.join(sources)}, not of {data.source}",
        )
    need(
        data.max_labels > 1 or not (data.label_separator or data.label_columns),
        "data.max_labels must be stated, since data.label_separator or data.label_columns give an "
        "example several labels: the largest number of them",
    )
    need(
        not (data.label_columns and (data.label_key or data.label_separator)),
        "data.label_columns are the labels; leave out data.label_key and data.label_separator",
    )
    need(len(data.delimiter) < 2, f"data.delimiter must be one character, not {data.delimiter!r}")
    need(
        data.source != "tfrecord" or (bool(data.path) and data.num_classes is not None),
        "data.path must name the directory of the TFRecord files, and data.num_classes be stated",
    )
    need(data.repeats > 0, f"data.repeats must be above 0, not {data.repeats}")
    need(data.max_labels > 0, f"data.max_labels must be above 0, not {data.max_labels}")
    need(0 < data.validation_share < 1, "data.validation_share must be in (0, 1)")
    for name, (low, high) in (("crop_area", data.crop_area), ("crop_aspect", data.crop_aspect)):
        need(0 < low <= high, f"data.{name} must be a rising pair above 0, not {(low, high)}")
    need(data.crop_area[1] <= 1, f"data.crop_area must not exceed 1, not {data.crop_area}")
    need(all(value > 0 for value in data.std or ()), f"data.std must be above 0, not {data.std}")
    channels = model.input_channels
    for name, values in (("mean", data.mean), ("std", data.std)):
        need(
            values is None or len(values) == channels,
            f"data.{name} is {values}, and model.input_channels {channels}: it must have as many "
            "numbers, or be None to follow from the model",
        )
    policy = experiment.augment.policy
    need(
        policy == "none" or channels in (1, 3),
        f"augment.policy is {policy!r}, some of whose operations are on colours, and "
        f"model.input_channels is {channels}; set it to 'none'",
    )
    need(data.max_pixels > 0, f"data.max_pixels must be above 0, not {data.max_pixels}")
    need(data.threads is None or data.threads > 0, "data.threads must be above 0 or None")
    need(data.processes is None or data.processes >= 0, "data.processes must be 0 or more, or None")
    need(data.prefetch_batches > 0, "data.prefetch_batches must be above 0")
    need(data.max_unreadable >= 0, "data.max_unreadable must not be negative")
    for name in ("num_classes", "num_train_examples"):
        stated = getattr(data, name)
        need(stated is None or stated > 0, f"data.{name} must be above 0 or None, not {stated}")

    weighted = [name for name, _ in experiment.class_weights]
    need(
        len({*weighted}) == len(weighted),
        f"class_weights has a class twice: {', '.join(weighted)}",
    )
    for name, weight in experiment.class_weights:
        need(0 <= weight < math.inf, f"class_weights: {name!r} must weigh 0 or more, not {weight}")
    need(
        not (experiment.class_weights and experiment.balanced_loss),
        "class_weights states what balanced_loss would take from the data; leave one of them out",
    )
    balanced = experiment.balanced_loss or experiment.class_weights or data.sampling == "balanced"
    need(
        epochs > 0 or not balanced,
        "epochs is 0, and the head that probe fits counts all pictures alike; leave out "
        "balanced_loss, class_weights and data.sampling, or state epochs",
    )
    need(
        not (experiment.balanced_loss and data.sampling == "balanced"),
        "balanced_loss and data.sampling=balanced make up for the same imbalance twice; leave one "
        "of them out",
    )

    evaluation = experiment.evaluation
    best_by = experiment.checkpoint.best_by or "loss"
    measured = ("map",) if evaluation.metric == "average_precision" else ("top1", "top5")
    need(
        best_by.removeprefix("raw_") in (*measured, "loss"),
        f"checkpoint.best_by is {best_by}, which evaluation.metric={evaluation.metric} does not "
        f"measure; it can be {', '.join((*measured, 'loss'))}",
    )
    pixels = evaluation.image_size
    need(
        pixels is None or pixels >= smallest,
        f"evaluation.image_size is {pixels}; {smallest} is the least",
    )
    need(evaluation.batch_size > 0, "evaluation.batch_size must be above 0")
    need(evaluation.every_epochs > 0, "evaluation.every_epochs must be above 0")
    for group_name, names in (
        ("checkpoint", ("every_steps", "keep_last")),
        ("log", ("every_steps",)),
    ):
        for name in names:
            number = getattr(getattr(experiment, group_name), name)
            need(number > 0, f"{group_name}.{name} must be above 0, not {number}")
    faults = experiment.faults
    need(faults.max_divergences > 0, "faults.max_divergences must be above 0")
    need(faults.loss_spike > 1, f"faults.loss_spike must be above 1, not {faults.loss_spike}")
    need(faults.hang_seconds > 0, "faults.hang_seconds must be above 0")
    need(experiment.checkpoint.keep_best >= 0, "checkpoint.keep_best must not be negative")
    augment = experiment.augment
    need(augment.randaugment_layers > 0, "augment.randaugment_layers must be above 0")
    deviation = augment.randaugment_deviation
    need(deviation >= 0, f"augment.randaugment_deviation must not be negative, it is {deviation}")
    need(
        deviation == 0 or augment.policy == "increasing",
        f"augment.randaugment_deviation is {deviation}, but only the policy 'increasing' has one",
    )
    for name in ("translate_pixels", "cutout_pixels"):
        pixels = getattr(augment, name)
        need(pixels is None or pixels >= 0, f"augment.{name} must not be negative")
    need(0 <= augment.cutout <= 1, f"augment.cutout must be in [0, 1], not {augment.cutout}")
    need(0 <= augment.erasing <= 1, f"augment.erasing must be in [0, 1], not {augment.erasing}")


def check_probe(experiment: Experiment) -> None:
    """Raises a ConfigError if a head is to be fitted to features of no weights.

    Of a run that is to train; one that is evaluated has its weights in its checkpoints.
    """
    if experiment.probe.views and not experiment.init:
        raise ConfigError(
            "config.probe.views is stated without config.init: features take weights to start from"
        )


def check_batches(experiment: Experiment, *, devices: int) -> None:
    """Raises a ConfigError if a batch, or one of its parts, does not divide over the devices."""
    parts = experiment.gradient_accumulation
    if any(stage.batch_size is None for stage in experiment.stages):
        check_batch("batch_size", experiment.batch_size, devices=devices, parts=parts)
    for index, stage in enumerate(experiment.stages):
        if stage.batch_size is not None:
            field = f"stages[{index}].batch_size"
            check_batch(field, stage.batch_size, devices=devices, parts=parts)
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=devices)


def check_batch(field: str, batch_size: int, *, devices: int, parts: int = 1) -> None:
    """Raises a ConfigError if a batch does not divide over the devices.

    Args:
      field: of the config, that states the batch size.
      parts: in which the batch is taken.
    """
    unit = devices * parts
    if batch_size % unit:
        accumulated = f" in {parts} parts (gradient_accumulation)" if parts > 1 else ""
        raise ConfigError(
            f"config.{field} is {batch_size}, which does not divide over {devices} devices"
            f"{accumulated}; {max(unit, batch_size // unit * unit)} would"
        )
