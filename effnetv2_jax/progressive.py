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
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run: an image size and the regularisation that goes with it."""

    image_size: int
    """Height and width of the training images in pixels, at least what the model takes."""
    share: float = 1.0
    """This stage's part of the run's examples, relative to the other stages' shares."""
    dropout_rate: float = 0.0
    """Dropout before the classifier, in [0, 1)."""
    stochastic_depth_rate: float | None = None
    """Probability that the last block is skipped, in [0, 1). None takes the model's own, which,
    where no stage states a rate, is compiled in."""
    randaugment_magnitude: float = 0.0
    """RandAugment's level on its 0-10 scale; it may exceed 10."""
    mixup_alpha: float = 0.0
    """Mixup draws its weights from Beta(alpha, alpha); 0 switches it off."""
    cutmix_alpha: float = 0.0
    """CutMix draws its areas from Beta(alpha, alpha); 0 switches it off."""
    batch_size: int | None = None
    """Examples per step over all devices; None takes the run's."""

    def traced(self) -> dict[str, float]:
        """By name, what may differ between stages that share a compiled step: floats."""
        values = {name: getattr(self, name) for name in TRACED}
        return {name: float(value) for name, value in values.items() if value is not None}


_COMPILED = ("image_size", "batch_size")
"""Fields that decide the shapes of a step."""

TRACED = tuple(
    field.name for field in dataclasses.fields(Stage) if field.name not in (*_COMPILED, "share")
)
"""Fields of a stage whose values go into its steps, and into every row of their log."""


def linear(count: int = 4, *, first: Stage, last: Stage) -> tuple[Stage, ...]:
    """Algorithm 1 of the paper: every value rises linearly from the first stage to the last.

    Args:
      count: number of stages M.
      first, last: the stages at the ends; a single stage is `last`. Image sizes between them are
        rounded down, batches are the same in both.

    Raises:
      ValueError: a field is stated in one of them alone, or their batches differ.
    """
    if first.batch_size != last.batch_size:
        raise ValueError(
            f"batch_size is {first.batch_size} in the first stage and {last.batch_size} in the "
            "last, and cannot be interpolated; state the same in both"
        )

    def at(name: str, index: int) -> Any:
        start, end = getattr(first, name), getattr(last, name)
        if (start is None) != (end is None):
            raise ValueError(
                f"{name} is {start} in the first stage and {end} in the last; state it in both, or "
                "in neither"
            )
        if start is None or index == count - 1:
            return end
        return start + (end - start) * index / (count - 1)

    return tuple(
        dataclasses.replace(
            last,
            image_size=int(at("image_size", index)),
            **{name: at(name, index) for name in ("share", *TRACED)},
        )
        for index in range(count)
    )


def released_code(count: int = 4, *, first: Stage, last: Stage) -> tuple[Stage, ...]:
    """The schedule that the authors' released program really runs.

    It differs from Algorithm 1 twice: image sizes are one step ahead, so that already the first
    stage's is above `first`'s (in that program 128 pixels), and dropout does not rise.

    Args:
      count: number of stages.
      first, last: as for `linear`, with the same dropout.

    Raises:
      ValueError: as for `linear`, or their dropout differs.
    """
    if first.dropout_rate != last.dropout_rate:
        raise ValueError(
            f"dropout_rate is {first.dropout_rate} in the first stage and {last.dropout_rate} in "
            "the last; the released program has its last value in all, so state that in both"
        )
    smallest, largest = first.image_size, last.image_size
    return tuple(
        dataclasses.replace(
            stage, image_size=int(smallest + (largest - smallest) * (index + 1) / count)
        )
        for index, stage in enumerate(linear(count, first=first, last=last))
    )


def random_resize(
    count: int, *, sizes: int = 4, first: Stage, last: Stage, seed: int = 0
) -> tuple[Stage, ...]:
    """A size drawn anew for every stage, with the regularisation that goes with that size.

    The paper's ablation of adaptive regularisation (section 6.3) draws one every 8 epochs.

    Args:
      count: number of stages.
      sizes: how many sizes there are, evenly spaced; each is compiled once.
      first, last: the stages of the smallest and of the largest size, as for `linear`.
      seed: of the draws.
    """
    steps = linear(sizes, first=first, last=last)
    # Of Random's methods, Python promises only that random() gives the same numbers for ever.
    rng = random.Random(seed)
    return tuple(steps[int(rng.random() * sizes)] for _ in range(count))


def uniform(stages: Sequence[Stage], own: object) -> tuple[Stage, ...]:
    """The stages, each of which states what any of them states, so that they can share a step.

    Args:
      own: has, under the same names, what stages take that leave a field None: the model's config.

    Raises:
      ValueError: it lacks one.
    """
    stated = {name for stage in stages for name in stage.traced()}

    def filled(index: int, stage: Stage) -> Stage:
        missing = sorted(stated - stage.traced().keys())
        for name in missing:
            if getattr(own, name, None) is None:
                raise ValueError(
                    f"stages[{index}].{name} must be stated, since another stage's is, and the "
                    "model's config has none to take in its place"
                )
        return dataclasses.replace(stage, **{name: getattr(own, name) for name in missing})

    return tuple(filled(index, stage) for index, stage in enumerate(stages))


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

    A run of no examples has no steps.

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
        if steps < 1 and examples:
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
