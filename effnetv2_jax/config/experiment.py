"""What a run is, as frozen dataclasses: every field, its meaning and its only default.

A config file builds an `Experiment` and returns `to_config_dict(experiment)`; `from_config_dict`
turns the ConfigDict, command-line overrides applied, back into a checked `Experiment`. Nothing
else in the package sees a ConfigDict, so a field that is unknown or has the wrong type is an
error before anything starts.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import ml_collections

from effnetv2_jax.preprocessing import CROP_PADDING, Interpolation, Preprocessing, Triple
from effnetv2_jax.progressive import Plan, Stage, plan


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and how it computes."""

    name: str = "efficientnetv2-s"
    """One of `effnetv2_jax.list_models()`."""
    width: float | None = None
    """Multiplies all channel counts; None takes the model's own."""
    depth: float | None = None
    """Multiplies all numbers of layers; None takes the model's own."""
    stochastic_depth_rate: float = 0.2
    """Probability that the last block is skipped; rises linearly from 0 at the first."""
    bn_momentum: float = 0.99
    """Share of the old value in BatchNorm's moving statistics (released code: 0.9)."""
    bn_epsilon: float = 1e-3
    """Added to BatchNorm's variance (torchvision's EfficientNet B0 to B4: 1e-5)."""
    bn_frozen: bool = False
    """BatchNorm normalises with its moving statistics in training too, and leaves them as they are;
    for fine-tuning with small batches."""
    bn_group: int | None = None
    """Examples that share BatchNorm statistics in training; None is the whole global batch."""
    padding: Literal["same", "symmetric"] = "same"
    """Of convolutions: TensorFlow's, or PyTorch's, as torchvision's weights need it."""
    remat: Literal["none", "blocks"] = "none"
    """`blocks`: rematerialisation; the backward pass keeps only each block's input, and computes
    the rest again: less memory, about a third more work, the same numbers."""
    dtype: Literal["bfloat16", "float32", "float64"] = "bfloat16"
    """What the network computes in. Parameters, statistics, logits and loss stay float32 (float64
    under float64, which also needs the environment variable JAX_ENABLE_X64=1)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how they become training images."""

    source: Literal["embedded", "tfds", "tfrecord", "folder"] = "embedded"
    """`embedded`: TrashNet, inside the package. `tfds`: a TensorFlow Datasets set prepared as
    ArrayRecord. `tfrecord`: TFRecord files. `folder`: your own pictures, a subfolder per class."""
    name: str = ""
    """`tfds`: name of the set, such as `imagenet2012` or `cifar10:3.0.2`."""
    path: str = ""
    """`tfds`: the data directory (empty: $TFDS_DATA_DIR or ~/tensorflow_datasets). `tfrecord`: the
    directory of the files. `folder`: the folder, which holds `train/` and `val/`, or the class
    folders themselves."""
    train_split: str = "train"
    """The split to train on; a slice takes part of it, such as `train[25023:]` or `train[:90%]`.
    Of `tfrecord`, the word that the files' names have, in whose order a slice is taken; of
    `folder`, the subfolder, and a slice is a random sample."""
    eval_split: str = "test"
    """The split to evaluate on, likewise. Of `folder`, `val`, `validation`, `valid` and `test` all
    mean the one that there is, or else what is held out."""
    validation_share: float = 0.1
    """`folder` without `train/` and `val/`: the share of every class held out for evaluation."""
    max_labels: int = 1
    """Labels that an example may have; ImageNet21k's have several."""
    first_label: int = 0
    """`tfrecord`: the number of the first class; 1 in the older files of ImageNet."""
    num_classes: int | None = None
    """Stated so that a plan needs no data, and checked against the data; None takes the data's."""
    num_train_examples: int | None = None
    """Stated so that a plan needs no data, and checked against the data; None takes the data's."""
    crop: Literal["tensorflow", "efficientnet", "torchvision", "none"] = "tensorflow"
    """Law of the random crops: TensorFlow's sample_distorted_bounding_box; the same with a tenth
    of the attempts, then evaluation's crop, as EfficientNet and the B models were trained;
    torchvision's RandomResizedCrop; or the whole picture squashed to the square."""
    crop_area: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest crop, as a share of the picture's area."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop."""
    interpolation: Interpolation | None = None
    """How crops are resized, in training and evaluation, without antialiasing; None takes what
    the weights in `init` were trained with, or else what the model was published with."""
    mean: Triple | None = None
    """Subtracted per channel (RGB) from pixels in [0, 255]; None likewise."""
    std: Triple | None = None
    """Divides per channel, after the mean is subtracted; None likewise."""
    threads: int | None = None
    """Decoding threads of each process; None takes one per CPU core. A picture of the largest size,
    67 megapixels, may take each 1.3 GB."""
    processes: int | None = None
    """Processes that share these threads out, so that Python's interpreter lock holds neither them
    nor the training up; 0 decodes in the training process, several thousand pictures a second at
    most. None takes one for every 4 threads if there are 8 or more, up to 32. Each takes about
    150 MB, and a copy of the list of pictures."""
    prefetch_batches: int = 4
    """Batches decoded ahead of the device."""
    max_unreadable: int = 100
    """Unreadable pictures are named, counted and replaced by the next one (in evaluation: left
    out); one more than this in a process stops the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a batch on the device; how strongly is each stage's affair."""

    flip: bool = True
    """Mirror half of the images."""
    policy: Literal["randaugment", "autoaugment", "none"] = "randaugment"
    """`randaugment`: at each stage's magnitude. `autoaugment`: AutoAugment's v0 policy for
    ImageNet, the same at every stage."""
    randaugment_layers: int = 2
    """Operations applied to each image, one after another."""
    translate_pixels: float | None = None
    """Translation at level 10; None takes the policy's own, 100 in RandAugment and 250 in
    AutoAugment. It does not shrink with the image, so images well below 128 pixels want less."""
    cutout_pixels: float | None = None
    """Half the side of RandAugment's Cutout at level 10, likewise; its own is 40."""
    cutout: float = 0.0
    """Side of a square of noise that hides part of every image, after the policy, as a share of
    the image's; 0 leaves it out. The paper's fine-tuning: 0.5."""
    contrast_fault: bool = False
    """Repeat the released code's Contrast, which blends with a wrong mean grey value."""
    mix_group: int | None = None
    """Mixup and CutMix partners are drawn from within groups of this many neighbouring examples
    (the group reversed); None is the whole global batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: Literal["rmsprop", "sgd", "adamw"] = "rmsprop"
    learning_rate: float = 0.016
    """Peak learning rate for 256 examples per step; scaled with each stage's batch size."""
    decay: float = 0.9
    """Averaging of squared gradients: RMSProp's decay, AdamW's beta2."""
    momentum: float = 0.9
    """RMSProp's and SGD's momentum, AdamW's beta1."""
    epsilon: float = 1e-3
    """RMSProp's, inside the square root; AdamW's, outside."""
    l2: float = 1e-5
    """Coefficient of the penalty sum(v^2) / 2 over all kernels, added to the gradient."""
    classifier_learning_rate: float | None = None
    """The classifier's own peak learning rate, stated likewise; None takes that of the rest."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay over all kernels."""
    gradient_clip: float | None = None
    """Largest global norm of the gradient; None does not clip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate's curve over the epochs. It counts examples, not steps."""

    name: Literal["exponential", "cosine", "constant"] = "exponential"
    warmup_epochs: float = 5.0
    """Linear from 0."""
    decay_rate: float = 0.97
    """`exponential`: factor after every `decay_epochs`, as a staircase counted from epoch 0."""
    decay_epochs: float = 2.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How accuracy is measured."""

    image_size: int | None = None
    """Height and width in pixels, at least 32; None takes the size and the resizing that the
    weights in `init` are meant for, or else those that the model was published with."""
    resize: Literal["auto", "crop", "squash"] = "auto"
    """`crop`: the centre, size / (size + 32) of the short side. `squash`: the whole picture.
    `auto`: at a stated `image_size` squash from 320 pixels up, as the released code does."""
    batch_size: int = 256
    """Examples per step over all devices; the last batch is padded and the padding masked."""
    every_epochs: float = 10.0
    """Evaluates this often during training, and always at the end."""
    sets: tuple[str, ...] = ()
    """With `--mode=eval`, these besides `data.eval_split`: TFDS sets of ImageNet's classes in
    `data.path` (for other sources than `tfds` in $TFDS_DATA_DIR), of which
    `effnetv2_jax.data.sources.eval_sets` has a table, such as `imagenet_v2`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved; the end of the run always is."""

    every_steps: int = 1000
    keep_last: int = 2
    keep_best: int = 1
    """How many of the checkpoints with the best evaluation are kept besides."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What a run tells about itself."""

    every_steps: int = 50
    tensorboard: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """What a run does when something goes wrong.

    A step whose loss or gradient is not finite never changes the state, whatever the policy.
    """

    on_divergence: Literal["halt", "skip", "roll_back"] = "halt"
    """After such a step, `halt` ends the run with a report; `skip` goes on with the next batch;
    `roll_back` returns to the newest checkpoint, and takes the examples from there on in another
    order."""
    max_divergences: int = 10
    """So many since the start are borne by `skip` and `roll_back`; one more halts the run."""
    loss_spike: float = 3.0
    """A loss this many times its recent mean is logged with the names of the batch's examples."""
    hang_seconds: float = 1800.0
    """When nothing has happened for so long, what every thread is doing is written to standard
    error, and again each time as long passes. A compilation may take many minutes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A whole run."""

    stages: tuple[Stage, ...]
    """Progressive learning's stages; `effnetv2_jax.progressive` makes the usual ones."""
    epochs: float = 350.0
    """Passes over the training examples, all stages together."""
    batch_size: int = 4096
    """Examples per step over all devices, where a stage does not say otherwise."""
    gradient_accumulation: int = 1
    """Parts in which a step's batch goes through the network, one after the other, so that it needs
    the memory of one. Each part has BatchNorm statistics of its own."""
    seed: int = 0
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over all classes together, with the labels of an example in equal shares; or
    for each class by itself, summed over the classes (the released code can also average)."""
    label_smoothing: float = 0.1
    init: str = ""
    """Weights to start from: a tag of the model's published ones (`in1k`, `in21k`, `in21k-ft1k`),
    `hub:OWNER/REPO[@REVISION]`, `workdir:DIR` or `file:PATH`; empty for random ones. A classifier
    for another number of classes starts anew."""
    trainable: str = ".*"
    """Regular expression, searched for in the parameters' paths (`blocks_3/expand/conv/kernel`):
    those that match are trained, the others stay as they are."""
    ema_decay: float | None = 0.9999
    """Moving average of parameters and BatchNorm statistics: min(this, (1 + t) / (10 + t));
    None switches it off."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    faults: FaultsConfig = FaultsConfig()
    distributed: Literal["auto", "on", "off"] = "auto"
    """Whether this process is one of several: `auto` asks the environment (a TPU slice, Slurm, Open
    MPI, Kubernetes, or the JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID of a start
    by hand); `on` makes it an error if that does not say; `off` trains alone."""

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """What evaluation does to pictures; training shares the normalisation and interpolation.

        Args:
          own: of the weights in `init`, or else of the model; fills in what the config leaves open.
        """
        data, evaluation = self.data, self.evaluation
        size, padding = evaluation.image_size, own.crop_padding
        if evaluation.resize != "auto":
            padding = CROP_PADDING if evaluation.resize == "crop" else None
        elif size is not None:
            padding = CROP_PADDING if size < 320 else None
        return Preprocessing(
            image_size=own.image_size if size is None else size,
            crop_padding=padding,
            interpolation=data.interpolation or own.interpolation,
            antialias=own.antialias and data.interpolation is None,
            mean=data.mean or own.mean,
            std=data.std or own.std,
        )

    def plan(self, num_train_examples: int) -> Plan:
        """The stages over steps, for a training set of `num_train_examples`."""
        try:
            return plan(
                self.stages,
                examples=self.epochs * num_train_examples,
                batch_size=self.batch_size,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None


MAY_DIFFER = (
    "data.path",
    "data.threads",
    "data.processes",
    "data.prefetch_batches",
    "data.max_unreadable",
    "evaluation.batch_size",
    "evaluation.every_epochs",
    "evaluation.sets",
    "checkpoint",
    "log",
    "faults",
    "distributed",
)
"""Fields, or groups of fields, that a continued run may change: they do not alter what is
trained. The number of devices and processes, which no field states, may change too."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which fields of two configs differ, as `field: old -> new`, `MAY_DIFFER` left out."""
    old_fields, new_fields = dict(flatten(old)), dict(flatten(new))
    return [
        f"{name}: {old_fields.get(name, 'absent')!r} -> {new_fields.get(name, 'absent')!r}"
        for name in sorted(old_fields.keys() | new_fields.keys())
        if old_fields.get(name) != new_fields.get(name) and not may_differ(name)
    ]


def may_differ(name: str) -> bool:
    """Whether a continued run may change a field, named as `flatten` does."""
    return any(name == free or name.startswith((f"{free}.", f"{free}[")) for free in MAY_DIFFER)


def to_config_dict(experiment: Experiment) -> ml_collections.ConfigDict:
    """The experiment as a ConfigDict whose fields the command line can override."""
    return _to_config_dict(experiment)


def from_config_dict(config: Mapping[str, Any] | ml_collections.ConfigDict) -> Experiment:
    """Checks a config and returns it typed.

    Raises:
      ConfigError: a field is unknown, missing, of the wrong type or out of range.
    """
    experiment = _parse(Experiment, config, "")
    _check(experiment)
    return experiment


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


def unknown_field(name: str, known: typing.Iterable[str], *, where: str = "config") -> str:
    """The message for a field that does not exist, with the closest one that does."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"its fields are {', '.join(known)}"
    return f"{where} has no field {name!r}; {hint}"


def _to_config_dict(node: Any) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            config[field.name] = _to_config_dict(value)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            config[field.name] = tuple(_to_config_dict(item) for item in value)
        elif (kind := _optional(hints[field.name])) is not None:
            # A placeholder lets an override give an optional field a value, and take it back.
            config[field.name] = ml_collections.config_dict.placeholder(_runtime_type(kind))
            config[field.name] = value
        else:
            # An int here would make ConfigDict refuse a fractional override.
            config[field.name] = float(value) if hints[field.name] is float else value
    config.lock()
    return config


def _optional(hint: Any) -> Any:
    """The type T of a hint `T | None`; None for any other hint."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return None
    (kind,) = set(typing.get_args(hint)) - {types.NoneType}
    return kind


def _runtime_type(kind: Any) -> type:
    """The type that values of a hint have: `str` for `Literal["a", "b"]`."""
    origin = typing.get_origin(kind)
    return type(typing.get_args(kind)[0]) if origin is Literal else origin or kind


def _parse(kind: Any, value: Any, path: str) -> Any:
    """Returns `value` as type `kind`, or raises a ConfigError that names `path`."""
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    if (some := _optional(kind)) is not None:
        return None if value is None else _parse(some, value, path)
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"config.{path} must be one of {options}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(f"config.{path} must be a tuple, not {value!r}")
        if options[-1] is Ellipsis:
            kinds = [options[0]] * len(value)
        elif len(value) == len(options):
            kinds = list(options)
        else:
            raise ConfigError(f"config.{path} must have {len(options)} entries, not {value!r}")
        return tuple(_parse(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if math.isnan(number):
            raise ConfigError(f"config.{path} must be a number that float holds, not {value!r}")
        return number
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"config.{path} must be {kind.__name__}, not {value!r}")
    return value


def _parse_dataclass(kind: Any, value: Any, path: str) -> Any:
    where = f"config.{path}" if path else "config"
    if isinstance(value, ml_collections.ConfigDict):
        value = {name: value[name] for name in value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must hold the fields of {kind.__name__}, not {value!r}")
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ConfigError(unknown_field(name, hints, where=where))
    for field in dataclasses.fields(kind):
        if field.name not in value and field.default is dataclasses.MISSING:
            raise ConfigError(f"{where} lacks the field {field.name!r}")
    prefix = f"{path}." if path else ""
    return kind(**{name: _parse(hints[name], item, prefix + name) for name, item in value.items()})


def _check(experiment: Experiment) -> None:
    """Raises a ConfigError for values that have the right type and make no sense."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(f"config.{message}")

    need(bool(experiment.stages), "stages must hold at least one stage")
    for index, stage in enumerate(experiment.stages):
        at = f"stages[{index}]"
        need(stage.image_size >= 32, f"{at}.image_size is {stage.image_size}; 32 is the least")
        need(0 < stage.share < math.inf, f"{at}.share must be above 0, not {stage.share}")
        need(0 <= stage.dropout_rate < 1, f"{at}.dropout_rate must be in [0, 1)")
        for name in ("randaugment_magnitude", "mixup_alpha", "cutmix_alpha"):
            need(getattr(stage, name) >= 0, f"{at}.{name} must not be negative")
        batch = stage.batch_size if stage.batch_size is not None else experiment.batch_size
        need(batch > 0, f"{at}.batch_size must be above 0, not {batch}")
        for name, group in (
            ("model.bn_group", experiment.model.bn_group),
            ("augment.mix_group", experiment.augment.mix_group),
        ):
            need(
                group is None or (group > 0 and batch % group == 0),
                f"{name} is {group}; it must divide {at}'s batch of {batch} examples",
            )
        parts, group = experiment.gradient_accumulation, experiment.model.bn_group or 1
        need(
            parts > 0 and batch % (parts * group) == 0,
            f"gradient_accumulation is {parts}; it must divide {at}'s batch of {batch} examples"
            + (f" into whole groups of model.bn_group={group}" if group > 1 else ""),
        )
    epochs = experiment.epochs
    need(0 < epochs < math.inf, f"epochs must be above 0 and not endless, not {epochs}")
    need(experiment.seed >= 0, f"seed must not be negative, it is {experiment.seed}")
    need(0 <= experiment.label_smoothing < 1, "label_smoothing must be in [0, 1)")
    decay = experiment.ema_decay
    need(decay is None or 0 <= decay < 1, f"ema_decay must be in [0, 1) or None, not {decay}")

    try:
        re.compile(experiment.trainable)
    except re.error as error:
        need(False, f"trainable is no regular expression: {error}")

    model = experiment.model
    need(model.bn_epsilon > 0, f"model.bn_epsilon must be above 0, not {model.bn_epsilon}")
    for name in ("width", "depth"):
        factor = getattr(model, name)
        need(factor is None or factor > 0, f"model.{name} must be above 0, not {factor}")
    need(0 <= model.stochastic_depth_rate < 1, "model.stochastic_depth_rate must be in [0, 1)")
    need(0 <= model.bn_momentum <= 1, "model.bn_momentum must be in [0, 1]")

    data = experiment.data
    need(data.source != "tfds" or bool(data.name), "data.name must name a TFDS set")
    need(data.source != "folder" or bool(data.path), "data.path must name a folder of pictures")
    need(
        data.source != "tfrecord" or (bool(data.path) and data.num_classes is not None),
        "data.path must name the directory of the TFRecord files, and data.num_classes be stated",
    )
    need(data.max_labels > 0, f"data.max_labels must be above 0, not {data.max_labels}")
    need(0 < data.validation_share < 1, "data.validation_share must be in (0, 1)")
    for name, (low, high) in (("crop_area", data.crop_area), ("crop_aspect", data.crop_aspect)):
        need(0 < low <= high, f"data.{name} must be a rising pair above 0, not {(low, high)}")
    need(data.crop_area[1] <= 1, f"data.crop_area must not exceed 1, not {data.crop_area}")
    need(all(value > 0 for value in data.std or ()), f"data.std must be above 0, not {data.std}")
    need(data.threads is None or data.threads > 0, "data.threads must be above 0 or None")
    need(data.processes is None or data.processes >= 0, "data.processes must be 0 or more, or None")
    need(data.prefetch_batches > 0, "data.prefetch_batches must be above 0")
    need(data.max_unreadable >= 0, "data.max_unreadable must not be negative")
    for name in ("num_classes", "num_train_examples"):
        stated = getattr(data, name)
        need(stated is None or stated > 0, f"data.{name} must be above 0 or None, not {stated}")

    optimizer, schedule = experiment.optimizer, experiment.schedule
    for name in ("learning_rate", "epsilon", "l2", "weight_decay"):
        need(getattr(optimizer, name) >= 0, f"optimizer.{name} must not be negative")
    for name in ("decay", "momentum"):
        need(0 <= getattr(optimizer, name) < 1, f"optimizer.{name} must be in [0, 1)")
    need(
        optimizer.classifier_learning_rate is None
        or (optimizer.classifier_learning_rate >= 0 and optimizer.learning_rate > 0),
        "optimizer.classifier_learning_rate must not be negative, and optimizer.learning_rate "
        "above 0 beside it; to train the classifier alone, set trainable='classifier'",
    )
    clip = optimizer.gradient_clip
    need(clip is None or clip > 0, f"optimizer.gradient_clip must be above 0 or None, not {clip}")
    need(
        optimizer.weight_decay == 0 or optimizer.name == "adamw",
        f"optimizer.weight_decay is AdamW's; for {optimizer.name} set optimizer.l2",
    )
    need(schedule.warmup_epochs >= 0, "schedule.warmup_epochs must not be negative")
    need(schedule.decay_epochs > 0, "schedule.decay_epochs must be above 0")
    need(0 < schedule.decay_rate <= 1, "schedule.decay_rate must be in (0, 1]")

    evaluation = experiment.evaluation
    size = evaluation.image_size
    need(size is None or size >= 32, f"evaluation.image_size is {size}; 32 is the least")
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
    for name in ("translate_pixels", "cutout_pixels"):
        pixels = getattr(augment, name)
        need(pixels is None or pixels >= 0, f"augment.{name} must not be negative")
    need(0 <= augment.cutout <= 1, f"augment.cutout must be in [0, 1], not {augment.cutout}")


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested values, under names such as `data.mean[0]`."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from flatten(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, tuple | list):
        for index, value in enumerate(node):
            yield from flatten(value, f"{path}[{index}]")
    else:
        yield path, node
