"""One network's training steps and inference, ours or timm's, ready to be timed in turn."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

from timm_here import import_timm

MOST = 512
"""Images of a batch, where its size is found."""
SECONDS = 0.4
"""That a round takes at least, unless one step takes longer."""
_LEFT = 0.85
"""Share of the device's memory that a batch may be expected to take."""


class OurNetwork:
    """Ours: the program's own training step, without augmentation, and inference.

    Args:
      name: of the model.
      train_sizes, eval_size: of the images, in pixels.
      batch: images; None takes as many as fit, by the account of the compiler.
      dtype: of the computation.
    """

    def __init__(
        self,
        name: str,
        train_sizes: tuple[int, ...],
        eval_size: int,
        batch: int | None,
        dtype: str,
    ) -> None:
        import jax
        import jax.numpy as jnp
        import numpy as np

        from effnetv2_jax.models.complexity import complexity
        from effnetv2_jax.models.shapes import abstract_variables
        from effnetv2_jax.parallel import startup
        from effnetv2_jax.parallel.compiler import compiler_options
        from effnetv2_jax.parallel.mesh import make_mesh, put_batch
        from effnetv2_jax.parallel.topology import limits_of
        from effnetv2_jax.train.compilation import compile_step
        from effnetv2_jax.train.costs import needed_memory
        from effnetv2_jax.train.optimizer import make_optimizer
        from effnetv2_jax.train.state import abstract_state, build_model, create_state, key_of
        from effnetv2_jax.train.step import as_float32, make_train_step, step_values

        startup.start("off", cache=False)
        self._runs: dict[str, Callable[[], Any]] = {}
        self._mesh = make_mesh()
        self.batches: dict[str, int] = {}
        memory = limits_of(jax.devices()[0]).memory or math.inf
        model = build_model(experiment_of(name, eval_size, 8, dtype), 1000)
        self._counts = counts_of(model, eval_size)

        def compiled(
            kind: str, size: int, compile_for: Callable[[int], Any], copies: float
        ) -> tuple[Any, int]:
            """A program and its batch; `copies` of the activations are guessed to be kept."""
            at_size = complexity(model, height=size, width=size).activations
            guess = _LEFT * memory / (copies * at_size * jnp.dtype(dtype).itemsize)
            images = batch or max(1, 2 ** int(math.log2(min(guess, MOST))))
            while True:
                program = compile_for(images)
                if needed_memory(program) <= _LEFT * memory or images == 1 or batch:
                    self.batches[kind] = images
                    return program, images
                images //= 2

        random = np.random.default_rng(0)

        def training(size: int) -> None:
            def compile_for(images: int) -> Any:
                experiment = experiment_of(name, size, images, dtype)
                optimizer = make_optimizer(experiment)
                step = make_train_step(experiment, model, optimizer, self._mesh)
                state = abstract_state(experiment, model, optimizer, self._mesh)
                (planned,) = experiment.plan(1_281_167).stages
                program = compile_step(step, planned, state, self._mesh, max_labels=1)
                self._planned = planned
                return program

            program, images = compiled(f"train {size}", size, compile_for, copies=5)
            values = as_float32(step_values(self._planned.stage, 1e-6))
            batch_arrays = {
                "image": random.integers(0, 256, (images, size, size, 3), np.uint8),
                "labels": random.integers(0, 1000, (images, 1), np.int32),
            }

            def begin() -> Callable[[], Any]:
                experiment = experiment_of(name, size, images, dtype)
                state = create_state(experiment, model, make_optimizer(experiment), self._mesh)
                arrays = put_batch(batch_arrays, self._mesh)

                def step() -> Any:
                    nonlocal state
                    state, metrics = program(state, arrays, values, key_of(0))
                    return metrics

                return step

            self._runs[f"train {size}"] = begin

        def inference(size: int) -> None:
            variables = abstract_variables(model)

            def compile_for(images: int) -> Any:
                shape = jax.ShapeDtypeStruct((images, size, size, 3), dtype)
                infer = jax.jit(
                    functools.partial(model.apply, train=False),
                    compiler_options=compiler_options(jax.devices()[0]),
                )
                return infer.lower(variables, shape).compile()

            program, images = compiled(f"inference {size}", size, compile_for, copies=2)

            def begin() -> Callable[[], Any]:
                arrays = jax.jit(model.lazy_init, static_argnames="train")(
                    jax.random.key(0),
                    jax.ShapeDtypeStruct((1, model.min_size, model.min_size, 3), jnp.float32),
                    train=False,
                )
                pictures = jnp.zeros((images, size, size, 3), dtype)
                return lambda: program(arrays, pictures)

            self._runs[f"inference {size}"] = begin

        for size in train_sizes:
            training(size)
        inference(eval_size)
        self._block = jax.block_until_ready

    def counts(self) -> dict[str, int]:
        """Parameters, and multiply-accumulates and activations at the size of evaluation."""
        return self._counts

    def kinds(self) -> dict[str, int]:
        """What can be timed, `train SIZE` and `inference SIZE`, and with how many images."""
        return self.batches

    def rates(self, kind: str, rounds: int) -> list[float]:
        """Images per second, by round."""
        step = self._runs[kind]()
        return timed(step, self._block, self.batches[kind], rounds)


class TimmNetwork:
    """timm's, eager and channels_last, in bfloat16 under autocast, or in float32."""

    def __init__(
        self,
        name: str,
        train_sizes: tuple[int, ...],
        eval_size: int,
        batch: int | None,
        dtype: str,
    ) -> None:
        timm, torch = import_timm()
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._autocast = functools.partial(
            torch.autocast, self._device, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        # ViT: its positions fit one size.
        flexible = {"dynamic_img_size": True} if name.startswith(("vit", "deit")) else {}
        model = timm.create_model(name, num_classes=1000, **flexible)
        self._model = model.to(self._device, memory_format=torch.channels_last)
        self._batch = batch or MOST
        kinds = [*(f"train {size}" for size in train_sizes), f"inference {eval_size}"]
        self.batches = dict.fromkeys(kinds, self._batch)

    def kinds(self) -> dict[str, int]:
        """What can be timed, and with how many images."""
        return self.batches

    def rates(self, kind: str, rounds: int) -> list[float]:
        """Images per second, by round; halves the batch until it fits."""
        while True:
            try:
                step, images = self._step(kind), self.batches[kind]
                return timed(step, lambda _: self._wait(), images, rounds)
            except self._torch.cuda.OutOfMemoryError:
                if self.batches[kind] == 1:
                    raise
                self.batches[kind] //= 2
            finally:
                self._model.zero_grad(set_to_none=True)
                if self._device == "cuda":
                    self._torch.cuda.empty_cache()

    def _step(self, kind: str) -> Callable[[], Any]:
        torch, model = self._torch, self._model
        what, size = kind.split()
        pictures = torch.randn(self.batches[kind], 3, int(size), int(size), device=self._device)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(len(pictures), dtype=torch.long, device=self._device)
        model.train(what == "train")

        def infer() -> Any:
            with torch.inference_mode(), self._autocast():
                return model(pictures)

        if what != "train":
            return infer
        optimizer = torch.optim.SGD(model.parameters(), 1e-6, 0.9)

        def step() -> Any:
            optimizer.zero_grad()
            with self._autocast():
                loss = torch.nn.functional.cross_entropy(model(pictures), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def counts_of(model: Any, size: int) -> dict[str, int]:
    """Parameters, and multiply-accumulates and activations for an image of a size in pixels."""
    from effnetv2_jax.models.complexity import complexity

    cost = complexity(model, height=size, width=size)
    return {
        "parameters": cost.trainable,
        "macs": cost.macs,
        "activations": cost.activations,
    }


def timed(
    step: Callable[[], Any], wait: Callable[[Any], Any], images: int, rounds: int
) -> list[float]:
    """Images per second, by round, after a step to warm up and one to say how long a round is."""
    wait(step())
    start = time.perf_counter()
    wait(step())
    steps = max(1, math.ceil(SECONDS / (time.perf_counter() - start)))
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            last = step()
        wait(last)
        rates.append(float(f"{steps * images / (time.perf_counter() - start):.4g}"))
    return rates


def experiment_of(name: str, size: int, batch: int, dtype: str) -> Any:
    """A training of any model, as plain as timm's side: SGD, and neither averages nor augmentation.

    Args:
      size: of the images, in pixels.
      batch: over all devices.
    """
    import dataclasses

    from effnetv2_jax.config import AugmentConfig, recipes
    from effnetv2_jax.config.optimizers import SGD
    from effnetv2_jax.models.registry import family_of
    from effnetv2_jax.progressive import Stage

    recipe = recipes.imagenet("efficientnetv2-s", "paper", (Stage(image_size=size),))
    data = dataclasses.replace(recipe.data, mean=None, std=None, interpolation=None)
    model: Any = family_of(name).config
    return dataclasses.replace(
        recipe,
        model=model(name=name, dtype=dtype),
        data=data,
        optimizer=SGD(learning_rate=1e-6, momentum=0.9),
        augment=AugmentConfig(policy="none", flip=False),
        ema_decay=None,
        batch_size=batch,
        evaluation=dataclasses.replace(recipe.evaluation, image_size=size),
    )
