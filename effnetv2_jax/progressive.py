"""Progressive learning with adaptive regularisation (paper, section 4 and Algorithm 1).

A training run is a tuple of `Stage`s. Image size and regularisation rise together from stage to
stage; weights, optimizer state, moving averages, learning rate and data order carry over. Nothing
here depends on a model: any tuple of stages is a schedule, and the helpers below make the usual
ones.
"""

import dataclasses
import itertools
import random
from collections.abc import Sequence

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run: an image size and the regularisation that goes with it."""

    image_size: int
    """Height and width of the training images in pixels, at least 32."""
    share: float = 1.0
    """This stage's part of the run's examples, relative to the other stages' shares."""
    dropout_rate: float = 0.0
    """Dropout before the classifier, in [0, 1)."""
    randaugment_magnitude: float = 0.0
    """RandAugment's level on its 0-10 scale; it may exceed 10."""
    mixup_alpha: float = 0.0
    """Mixup draws its weights from Beta(alpha, alpha); 0 switches it off."""
    cutmix_alpha: float = 0.0
    """CutMix draws its areas from Beta(alpha, alpha); 0 switches it off."""
    batch_size: int | None = None
    """Examples per step over all devices; None takes the run's."""


def linear(
    count: int = 4,
    *,
    image_size: tuple[int, int],
    dropout_rate: Range = (0.0, 0.0),
    randaugment_magnitude: Range = (0.0, 0.0),
    mixup_alpha: Range = (0.0, 0.0),
    cutmix_alpha: Range = (0.0, 0.0),
) -> tuple[Stage, ...]:
    """Algorithm 1 of the paper: every setting rises linearly from its first to its last value.

    Args:
      count: number of stages M, each with an equal share of the run.
      image_size: first and last size in pixels; those between are rounded down.
      dropout_rate, randaugment_magnitude, mixup_alpha, cutmix_alpha: first and last value.
    """

    def at(ends: Range, index: int) -> float:
        first, last = ends
        return last if index == count - 1 else first + (last - first) * index / (count - 1)

    return tuple(
        Stage(
            image_size=int(at(image_size, index)),
            dropout_rate=at(dropout_rate, index),
            randaugment_magnitude=at(randaugment_magnitude, index),
            mixup_alpha=at(mixup_alpha, index),
            cutmix_alpha=at(cutmix_alpha, index),
        )
        for index in range(count)
    )


def released_code(
    count: int = 4,
    *,
    image_size: int,
    dropout_rate: float,
    randaugment_magnitude: Range = (0.0, 0.0),
    mixup_alpha: Range = (0.0, 0.0),
    cutmix_alpha: Range = (0.0, 0.0),
) -> tuple[Stage, ...]:
    """The schedule that the authors' released program really runs.

    It differs from Algorithm 1 twice: the first size is already one step above 128 pixels, and
    dropout stays at its last value throughout.

    Args:
      count: number of stages.
      image_size: the last stage's size in pixels.
      dropout_rate: of every stage.
      randaugment_magnitude, mixup_alpha, cutmix_alpha: first and last value.
    """
    stages = linear(
        count,
        image_size=(image_size, image_size),
        dropout_rate=(dropout_rate, dropout_rate),
        randaugment_magnitude=randaugment_magnitude,
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
    )
    smallest = 128
    return tuple(
        dataclasses.replace(
            stage, image_size=int(smallest + (image_size - smallest) * (index + 1) / count)
        )
        for index, stage in enumerate(stages)
    )


def constant(
    *,
    image_size: int,
    dropout_rate: float = 0.0,
    randaugment_magnitude: float = 0.0,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
) -> tuple[Stage, ...]:
    """One stage: ordinary training at one size, as the paper trains B0-B3."""
    return (
        Stage(
            image_size=image_size,
            dropout_rate=dropout_rate,
            randaugment_magnitude=randaugment_magnitude,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
        ),
    )


def random_resize(
    count: int,
    *,
    sizes: int = 4,
    image_size: tuple[int, int],
    dropout_rate: Range = (0.0, 0.0),
    randaugment_magnitude: Range = (0.0, 0.0),
    mixup_alpha: Range = (0.0, 0.0),
    cutmix_alpha: Range = (0.0, 0.0),
    seed: int = 0,
) -> tuple[Stage, ...]:
    """A size drawn anew for every stage, with the regularisation that goes with that size.

    The paper's ablation of adaptive regularisation (section 6.3) draws one every 8 epochs.

    Args:
      count: number of stages, each with an equal share of the run.
      sizes: how many sizes there are, evenly spaced; each is compiled once.
      image_size, dropout_rate, randaugment_magnitude, mixup_alpha, cutmix_alpha: at the smallest
        and at the largest size, as for `linear`.
      seed: of the draws.
    """
    steps = linear(
        sizes,
        image_size=image_size,
        dropout_rate=dropout_rate,
        randaugment_magnitude=randaugment_magnitude,
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
    )
    # Of Random's methods, Python promises only that random() gives the same numbers for ever.
    rng = random.Random(seed)
    return tuple(steps[int(rng.random() * sizes)] for _ in range(count))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage with its place in the run: steps `first_step` to `end_step - 1`."""

    index: int
    stage: Stage
    batch_size: int
    first_step: int
    end_step: int
    first_example: int
    """How many examples the stages before this one train on."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The stages laid out over a run's steps; a pure function of the step."""

    stages: tuple[PlannedStage, ...]

    @property
    def total_steps(self) -> int:
        return self.stages[-1].end_step

    def stage_at(self, step: int) -> PlannedStage:
        """The stage that trains step `step`, counted from 0; the last stage from the end on."""
        for planned in self.stages:
            if step < planned.end_step:
                return planned
        return self.stages[-1]

    def examples_before(self, step: int) -> int:
        """How many examples the steps 0 to `step - 1` train on."""
        planned = self.stage_at(step)
        return planned.first_example + (step - planned.first_step) * planned.batch_size


def plan(stages: Sequence[Stage], *, examples: float, batch_size: int) -> Plan:
    """Lays stages over a run of `examples` training examples, repeats counted.

    Shares are shares of the examples, so that a stage with a larger batch takes fewer steps.

    Raises:
      ValueError: there is no stage, or one of them would get no step.
    """
    if not stages:
        raise ValueError("stages: at least one stage is needed")
    total_share = sum(stage.share for stage in stages)
    planned: list[PlannedStage] = []
    step = example = 0
    ends = itertools.accumulate(stage.share / total_share for stage in stages)
    for index, (stage, end) in enumerate(zip(stages, ends, strict=True)):
        stage_batch = stage.batch_size or batch_size
        # The sum of the shares may miss 1 by a rounding error; the run must not lose a step to it.
        target = examples if index == len(stages) - 1 else examples * end
        steps = int((target - example) / stage_batch + 1e-9)
        if steps < 1:
            raise ValueError(
                f"stages[{index}]: its share of the run's {examples:,.0f} examples is less than "
                f"one batch of {stage_batch}; train for more epochs, or use a smaller batch"
            )
        planned.append(
            PlannedStage(
                index=index,
                stage=stage,
                batch_size=stage_batch,
                first_step=step,
                end_step=step + steps,
                first_example=example,
            )
        )
        step += steps
        example += steps * stage_batch
    return Plan(tuple(planned))
