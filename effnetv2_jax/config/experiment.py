"""What a run is, as frozen dataclasses: every field, its meaning and its only default.

A config file builds an `Experiment` and returns `to_config_dict(experiment)`; see `reading`.
"""

import dataclasses
from typing import Literal

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.optimizers import OptimizerConfig
from effnetv2_jax.config.schedules import ScheduleConfig
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.preprocessing import CROP_PADDING, Interpolation, PerChannel, Preprocessing
from effnetv2_jax.progressive import Plan, Stage, plan, uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how they become training images."""

    source: Literal[
        "embedded", "tfds", "tfrecord", "folder", "csv", "huggingface", "webdataset"
    ] = "embedded"
    """`embedded`: TrashNet, inside the package. `tfds`: a TensorFlow Datasets set prepared as
    ArrayRecord. `tfrecord`: TFRecord files. `folder`: your own pictures, a subfolder per class.
    `csv`: a table of pictures and labels. `huggingface`: Parquet files or a saved set of Hugging
    Face's `datasets`. `webdataset`: tar files, as WebDataset reads them."""
    name: str = ""
    """`tfds`: name of the set, such as `imagenet2012` or `cifar10:3.0.2`."""
    path: str = ""
    """`tfds`: the data directory (empty: $TFDS_DATA_DIR or ~/tensorflow_datasets). `tfrecord`: the
    directory of the files. `folder`: the folder, which holds `train/` and `val/`, or the class
    folders themselves. `csv`: the file, or the folder of `train.csv` and `val.csv`. `huggingface`
    and `webdataset`: the folder, or a file."""
    train_split: str = "train"
    """The split to train on; a slice takes part of it, such as `train[25023:]` or `train[:90%]`.
    Of `tfrecord`, the word that the files' names have, in whose order a slice is taken; of
    `folder`, the subfolder, and a slice is a random sample; `all` is all of it."""
    eval_split: str = "test"
    """The split to evaluate on, likewise. Of `folder` and other sources with files of your own,
    `val` and `test` stand in for each other where only one is there, and for what is held out where
    none is."""
    layout: Literal["auto", "classes"] = "auto"
    """`folder`: `auto` tells folders of splits from those of classes by what they are called and
    hold, and refuses what could be either. `classes`: all of them are classes."""
    validation_share: float = 0.1
    """`folder` without `train/` and `val/`, and likewise `csv`, `huggingface` and `webdataset`: the
    share of every class held out for evaluation."""
    picture_key: str = ""
    """`csv`: the picture's column, by its name or its number from 1. `tfrecord`, `huggingface` and
    `webdataset`: the key that the picture has. Empty takes one that is usual."""
    label_key: str = ""
    """Likewise of the label, or labels. `webdataset`: `cls`, `txt`, or `json:KEY`."""
    split_key: str = ""
    """`csv`: likewise the column that says of which split a row is; empty takes a column `split`
    with names of splits in it, if there is one."""
    label_columns: tuple[str, ...] = ()
    """`csv`: columns that are classes, with a 0 or 1 in every row; `("*",)` is all others. For
    several labels, in place of `label_key`."""
    label_separator: str = ""
    """`csv` and `webdataset`: what stands between the labels of an example, such as `;`; empty: it
    has one."""
    pictures: str = ""
    """`csv`: the folder that relative paths start from, seen from the table's."""
    labels: str = ""
    """`folder`: a list of the pictures for evaluation and their classes, seen from `path`, where
    they are in no class folders; read as a `csv` is, with `pictures` and the fields of its columns.
    Tiny ImageNet's `val_annotations.txt` is found."""
    header: Literal["auto", "yes", "no"] = "auto"
    """`csv`: whether the first row names the columns; `auto` says what it takes it for."""
    delimiter: str = ""
    """`csv`: what stands between the cells; empty finds out, of comma, semicolon, tab and bar."""
    encoding: str = ""
    """`csv`: of the text, such as `cp1252`; empty is UTF-8."""
    files: str = ""
    """`tfrecord`, `huggingface` and `webdataset`: the names of the files, as `{split}-*.rec`, with
    `{split}` for the split's name; empty takes those that are usual."""
    sampling: Literal["natural", "balanced"] = "natural"
    """What is trained on, and how often: `natural`, every example once in an epoch. `balanced`,
    every class equally often, each in turn with its next example; in an epoch of as many examples
    those of a rare class come several times, and not all of a frequent one. An example with several
    labels stands for each of them, one without is left out."""
    max_labels: int = 1
    """Labels that an example may have; ImageNet21k's have several."""
    first_label: int = 0
    """`tfrecord`, `csv` and `webdataset`, of labels that are numbers: that of the first class; 1 in
    the older files of ImageNet."""
    num_classes: int | None = None
    """Stated so that a plan needs no data, and checked against the data; None takes the data's.
    Labels of `csv` and `webdataset` that are numbers are places among so many."""
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
    repeats: int = 1
    """So many neighbours in the order of examples are crops of one picture (repeated augmentation):
    an epoch sees one in so many of the pictures."""
    interpolation: Interpolation | None = None
    """How crops are resized, in training and evaluation, without antialiasing; None takes what
    the weights in `init` were trained with, or else what the model was published with."""
    mean: PerChannel | None = None
    """Subtracted per channel (mostly RGB) from pixels in [0, 255]; None likewise. Other channels
    than three have the three's average (grey) or take them in turn."""
    std: PerChannel | None = None
    """Divides per channel, after the mean is subtracted; None likewise."""
    threads: int | None = None
    """Decoding threads of each process; None takes one per CPU core. A picture of `max_pixels`, 67
    megapixels, may take each 1.3 GB."""
    processes: int | None = None
    """Processes that share these threads out, so that Python's interpreter lock holds neither them
    nor the training up; 0 decodes in the training process, several thousand pictures a second at
    most. None takes one for every 4 threads if there are 8 or more, up to 32. Each takes about
    50 MB, and a copy of the list of pictures."""
    prefetch_batches: int = 4
    """Batches decoded ahead of the device."""
    max_pixels: int = 2**26
    """Larger pictures count as unreadable, by what their headers say, so that no file can take
    unbounded memory: a thread takes up to 20 bytes for each of so many pixels."""
    max_unreadable: int = 100
    """Unreadable pictures are named, counted and replaced by others of their class (in evaluation:
    left out); one more than this in a process stops the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a batch on the device; each stage states how strongly."""

    flip: bool = True
    """Mirror half of the images."""
    policy: Literal["randaugment", "increasing", "autoaugment", "none"] = "randaugment"
    """Of pictures in grey or RGB, since some operations are on colours; for others `none` alone.
    `randaugment`: at each stage's magnitude. `increasing`: likewise, with operations that all
    distort more at a higher one, of which half are left out, as DeiT was trained. `autoaugment`:
    AutoAugment's v0 policy for ImageNet, the same at every stage."""
    randaugment_layers: int = 2
    """Operations applied to each image, one after another."""
    randaugment_deviation: float = 0.0
    """Standard deviation of the levels that `increasing` draws around the magnitude."""
    translate_pixels: float | None = None
    """Translation at level 10; None takes the policy's own, 100 in RandAugment and 250 in
    AutoAugment. It does not shrink with the image, so images well below 128 pixels need less."""
    cutout_pixels: float | None = None
    """Half the side of RandAugment's Cutout at level 10, likewise; its own is 40."""
    cutout: float = 0.0
    """Side of a square of noise that hides part of every image, after the policy, as a share of
    the image's; 0 leaves it out. The paper's fine-tuning: 0.5."""
    erasing: float = 0.0
    """Probability that a rectangle of noise hides part of a normalised image; 0 leaves it out."""
    contrast_fault: bool = False
    """Repeat the released code's Contrast, which blends with a wrong mean grey value."""
    mix_group: int | None = None
    """Mixup and CutMix partners are drawn from within groups of this many neighbouring examples
    (the group reversed); None is the whole global batch."""
    mix_per_batch: bool = False
    """Mixup and CutMix are drawn once for all examples of a batch, in place of once for each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a run's weights are measured."""

    metric: Literal["accuracy", "average_precision"] = "accuracy"
    """`accuracy`: top-1 and top-5, for which any of an example's labels is right.
    `average_precision`: for several labels, its mean over the classes (mAP)."""

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


BestBy = Literal["top1", "top5", "map", "loss", "raw_top1", "raw_top5", "raw_map", "raw_loss"]
"""What a checkpoint may be the best in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved, as it also is at the end of the run; and what is kept."""

    every_steps: int = 1000
    """Saves after so many, and after every evaluation."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept."""
    keep_best: int = 1
    """How many of the checkpoints with the best evaluation are kept besides."""
    best_by: BestBy | None = None
    """What is best: the highest accuracy or mean average precision (`map`) or the lowest loss, in
    evaluation, of the averaged weights (`raw_`: of those trained last, as it also is where there
    are no averages). Of equals the newest. None is `top1`, or `map` where `evaluation.metric` is
    average precision."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How often a run logs, and where to."""

    every_steps: int = 50
    """Steps between two lines of the training metrics."""
    tensorboard: bool = True
    """Writes the same numbers for TensorBoard, into `tensorboard/`."""
    parameters: bool = False
    """Shows a table of all parameters at the start; `parameters.txt` has it in any case."""
    report: bool = True
    """Writes `report.html`, and the predictions it is made from, at every evaluation."""


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
    """`skip` and `roll_back` allow so many since the start; one more halts the run."""
    loss_spike: float = 3.0
    """A loss this many times its recent mean is logged with the names of the batch's examples."""
    hang_seconds: float = 1800.0
    """When nothing has happened for so long, what every thread is doing is written to standard
    error, and again each time as long passes. A compilation may take many minutes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A head that is fitted to features before the first step, in place of a random one.

    The weights in `init` compute the features of every training picture once, and the best linear
    classifier on them becomes the head. With `epochs=0` that is all the run does."""

    views: int = 0
    """Of each picture: 0 fits no head; 1 takes the picture as evaluation does; 2 also its mirror
    image, which takes twice as long."""
    l2: float | None = None
    """Penalty of the head's kernel, for features scaled to deviation 1; None tries several on a
    fifth of the pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """When a run ends before its last step."""

    patience: int | None = None
    """Evaluations in a row of which none is better than the best before them, by
    `checkpoint.best_by`, end the run; None trains to the end. It is kept in the checkpoints, so
    that a run that is interrupted ends at the same step."""
    min_gain: float = 0.0
    """Better means better by more than this: a share of the pictures, or nats of the loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A whole run."""

    model: ModelConfig
    """The dataclass of the network's family."""
    optimizer: OptimizerConfig
    """One of `effnetv2_jax.config.optimizers`."""
    schedule: ScheduleConfig
    """One of `effnetv2_jax.config.schedules`."""
    stages: tuple[Stage, ...]
    """Progressive learning's stages; `effnetv2_jax.progressive` makes the usual ones."""
    epochs: float = 350.0
    """Passes over the training examples, all stages together. 0, with `probe`, takes no step."""
    min_steps: int = 0
    """Where `epochs` give a small training set fewer steps than this, it gets more epochs, and
    warm-up and evaluations are as much further apart."""
    batch_size: int = 4096
    """Examples per step over all devices, where a stage does not say otherwise. 0 (on the command
    line `auto`) takes what suits the number of training examples and fits into memory."""
    gradient_accumulation: int = 1
    """Parts in which a step's batch goes through the network, one after the other, so that it needs
    the memory of one. Each part has BatchNorm statistics of its own."""
    seed: int = 0
    """Of everything random: the parameters, the order of the examples, crops, augmentation."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy over all classes together, with the labels of an example in equal shares; or
    for each class by itself, summed over the classes (the released code can also average)."""
    label_smoothing: float = 0.1
    """Share of the targets that is spread over all classes, in [0, 1)."""
    class_weights: tuple[tuple[str, float], ...] = ()
    """How much classes weigh in the loss, by name: `(("rare", 5.0),)`; others weigh 1. The softmax
    loss of an example is multiplied by the weight of its label (the mean of several); of the
    sigmoid loss, a class's term where an example has it. Evaluation does not weigh."""
    balanced_loss: bool = False
    """Weights from the training data in place of stated ones. Softmax: N / (K n) for a class of n
    of the N labels of K classes, which is 1 on average. Sigmoid: (N - n) / n for one that n of N
    examples have."""
    init: str = ""
    """Weights to start from: a tag of the model's published ones (`in1k`, `in21k`, `in21k-ft1k`),
    `hub:OWNER/REPO[@REVISION]`, `workdir:DIR` or `file:PATH`; empty for random ones. A head for
    another number of classes starts anew."""
    probe: ProbeConfig = ProbeConfig()
    rates: tuple[tuple[str, float], ...] = ()
    """Factors of the learning rate, by regular expressions that are searched for in the parameters'
    paths (`blocks_3/expand/conv/kernel`): the first that matches wins, a parameter that none
    matches has 1, and with 0 it stays as it is: `(("classifier", 1.0), (".*", 0.0))`."""
    ema_decay: float | None = 0.9999
    """Moving average of parameters and BatchNorm statistics: min(this, (1 + t) / (10 + t));
    None switches it off."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    log: LogConfig = LogConfig()
    faults: FaultsConfig = FaultsConfig()
    distributed: Literal["auto", "on", "off"] = "auto"
    """Whether this process is one of several: `auto` asks the environment (a TPU slice, Slurm, Open
    MPI, Kubernetes, or the JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID of a start
    by hand); `on` makes it an error if that does not say; `off` trains alone."""

    @property
    def best_by(self) -> BestBy:
        """What the best checkpoint is best in."""
        of_metric: BestBy = "map" if self.evaluation.metric == "average_precision" else "top1"
        return self.checkpoint.best_by or of_metric

    @property
    def kept(self) -> CheckpointConfig:
        """Which checkpoints are kept, with what is best by stated."""
        return dataclasses.replace(self.checkpoint, best_by=self.best_by)

    def settled(self) -> "Experiment":
        """As a run records it: what its network computes does not depend on defaults."""
        return dataclasses.replace(self, model=self.model.settled())

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """What evaluation does to pictures; training shares the normalisation and interpolation.

        Args:
          own: of the weights in `init`, or else of the model; fills in what the config leaves open.
        """
        data, evaluation = self.data, self.evaluation
        own = own.for_channels(self.model.input_channels)
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
                uniform(self.stages, self.model),
                examples=self.epochs * num_train_examples,
                batch_size=self.batch_size,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
