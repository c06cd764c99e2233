"""conv2d, whatever it is lowered to, against XLA's own convolution."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_jax.ops.conv import Padding, conv2d

Conv = Callable[[jax.Array, jax.Array], jax.Array]


class Case(NamedTuple):
    """A convolution of `[batch, height, width, inputs]` with a square kernel."""

    kind: str = "depthwise"
    kernel: int = 3
    stride: int = 1
    height: int = 8
    width: int = 7
    batch: int = 2
    inputs: int = 4
    outputs: int = 6
    padding: Padding = "same"

    def arrays(self, dtype: str, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Random input, kernel and cotangent."""
        depthwise = self.kind == "depthwise"
        outputs = self.inputs if depthwise else self.outputs
        x = (self.batch, self.height, self.width, self.inputs)
        kernel = (self.kernel, self.kernel, 1 if depthwise else self.inputs, outputs)
        y = (self.batch, -(-self.height // self.stride), -(-self.width // self.stride), outputs)
        random = np.random.default_rng(seed)
        x_, kernel_, y_ = (jnp.asarray(random.normal(size=s), dtype) for s in (x, kernel, y))
        return x_, kernel_, y_

    @property
    def ours(self) -> Conv:
        groups = self.inputs if self.kind == "depthwise" else 1
        return lambda x, kernel: conv2d(
            x, kernel, stride=self.stride, groups=groups, padding=self.padding
        )

    @property
    def xla(self) -> Conv:
        return lambda x, kernel: jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            "SAME" if self.padding == "same" else [(self.kernel // 2,) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.inputs if self.kind == "depthwise" else 1,
        )


UNOPTIMISED: dict[str, Any] = {"xla_backend_optimization_level": 0}
"""Compiles fast."""


def derivatives(conv: Conv, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> list[np.ndarray]:
    """Output, both gradients, and the derivative along the inputs themselves, as float64."""

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def compute(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        y, pull_back = jax.vjp(conv, x, kernel)
        _, forward = jax.jvp(conv, (x, kernel), (jnp.ones_like(x), kernel))
        return y, *pull_back(dy), forward

    return [np.asarray(value, np.float64) for value in compute(x, kernel, dy)]


def assert_same(case: Case, dtype: str, tolerance: float, seed: int = 0) -> None:
    """Both agree within `tolerance` of each result's largest value."""
    arrays = case.arrays(dtype, seed)
    results, references = derivatives(case.ours, *arrays), derivatives(case.xla, *arrays)
    for result, reference in zip(results, references, strict=True):
        assert result.shape == reference.shape
        np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance * abs(reference).max())


cases = st.builds(
    Case,
    kind=st.sampled_from(["depthwise", "dense"]),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    batch=st.integers(1, 3),
    inputs=st.integers(1, 5),
    outputs=st.sampled_from([1, 3, 5, 64, 70]),
    padding=st.sampled_from(["same", "symmetric"]),
)
kinds = pytest.mark.parametrize(
    "case",
    [
        Case("depthwise", kernel=3),
        Case("depthwise", kernel=3, stride=2),
        Case("depthwise", kernel=5, stride=2),
        Case("dense", kernel=1),
        Case("dense", kernel=1, stride=2),
        Case("dense", kernel=3, stride=2),
        Case("depthwise", kernel=3, stride=2, padding="symmetric"),
        Case("dense", kernel=3, stride=2, padding="symmetric"),
        # Wide outputs have gradients by matrix products, and more inputs XLA's own forward pass.
        Case("dense", kernel=3, inputs=8, outputs=72),
        Case("dense", kernel=3, stride=2, inputs=8, outputs=72),
        Case("dense", kernel=3, stride=2, inputs=8, outputs=72, padding="symmetric"),
    ],
    ids=lambda case: f"{case.kind}-{case.kernel}-stride{case.stride}-{case.padding}-{case.outputs}",
)


@pytest.mark.usefixtures("x64")
@given(case=cases, seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_conv_and_derivatives_are_xlas_in_float64(case: Case, seed: int) -> None:
    assert_same(case, "float64", 1e-12, seed)


@kinds
def test_conv_and_derivatives_are_xlas_in_float32(case: Case) -> None:
    assert_same(case, "float32", 1e-6)


@kinds
def test_conv_and_derivatives_are_xlas_in_bfloat16(case: Case) -> None:
    assert_same(case, "bfloat16", 2**-7)  # one unit in the last place


def test_bfloat16_gradients_keep_their_digits_over_many_pixels() -> None:
    case = Case("depthwise", height=64, width=64, inputs=8)
    arrays = [jnp.abs(array) for array in case.arrays("bfloat16")]  # nothing cancels in the sums
    results = derivatives(case.ours, *arrays)
    references = derivatives(case.xla, *(array.astype(jnp.float32) for array in arrays))
    for result, reference in zip(results, references, strict=True):
        np.testing.assert_allclose(result, reference, rtol=2**-7)


@kinds
def test_conv_keeps_the_dtype(case: Case) -> None:
    for dtype in ("bfloat16", "float32"):
        x, kernel, _ = case.arrays(dtype)
        assert jax.eval_shape(case.ours, x, kernel).dtype == dtype


def test_vmap_over_inputs_and_kernels_equals_a_loop() -> None:
    for case in (Case("depthwise"), Case("dense", kernel=1), Case("dense", stride=2)):
        examples = [case.arrays("float32", seed)[:2] for seed in range(3)]
        xs, kernels = (jnp.stack(arrays) for arrays in zip(*examples, strict=True))
        together = jax.jit(jax.vmap(case.ours))(xs, kernels)
        for index, (x, kernel) in enumerate(examples):
            np.testing.assert_allclose(together[index], case.ours(x, kernel), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["depthwise", "dense"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_exports_for_all_platforms_with_symbolic_sizes(kind: str, kernel: int, stride: int) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")
    case = Case(kind, kernel, stride)
    weights = case.arrays("float32")[1]
    shape = jax.export.symbolic_shape("b, h, w", constraints=["h >= 4", "w >= 4"])
    exported = jax.export.export(
        jax.jit(lambda x: case.ours(x, weights)), platforms=("cpu", "cuda", "tpu")
    )(jax.ShapeDtypeStruct((*shape, case.inputs), jnp.float32))
    loaded = jax.export.deserialize(exported.serialize())
    for height, width, batch in ((8, 7, 1), (5, 4, 3)):
        x = case._replace(height=height, width=width, batch=batch).arrays("float32")[0]
        np.testing.assert_allclose(loaded.call(x), case.xla(x, weights), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "case",
    [
        Case("depthwise", kernel=5, stride=2),
        Case("dense", kernel=1),
        Case("dense", kernel=3, stride=2, outputs=64),
        Case("dense", kernel=3, inputs=8),
    ],
    ids=lambda case: f"{case.kind}-{case.kernel}-stride{case.stride}-{case.outputs}",
)
def test_hessian_vector_products_are_xlas(case: Case) -> None:
    x, kernel, _ = case.arrays("float64")

    @functools.partial(jax.jit, static_argnums=0, compiler_options=UNOPTIMISED)
    def products(conv: Conv, x: jax.Array, kernel: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.tanh(conv(x, kernel)) ** 2)

        along, gradient = (jnp.cos(x), jnp.sin(kernel)), jax.grad(loss, (0, 1))
        forward_over_reverse = jax.jvp(gradient, (x, kernel), along)[1]
        reverse_over_reverse = jax.vjp(gradient, x, kernel)[1](along)
        return [forward_over_reverse, reverse_over_reverse]

    ours, xlas = products(case.ours, x, kernel), products(case.xla, x, kernel)
    for results in ours:
        for result, reference in zip(results, xlas[0], strict=True):
            np.testing.assert_allclose(result, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [Case("depthwise"), Case("dense"), Case("dense", kernel=1)])
def test_the_gradient_of_a_wide_kernel_is_a_wide_sum(case: Case) -> None:
    """257 is no number of bfloat16."""
    x, kernel, dy = case._replace(batch=257, height=1, width=1).arrays("bfloat16")
    wide = kernel.astype(jnp.float32)
    y, pull_back = jax.vjp(case.ours, jnp.ones_like(x), wide)
    dx, dkernel = pull_back(jnp.ones_like(dy))
    assert (y.dtype, dx.dtype, dkernel.dtype) == ("bfloat16", "bfloat16", "float32")
    centre = case.kernel // 2
    np.testing.assert_array_equal(dkernel[centre, centre], 257)
    np.testing.assert_array_equal(y, case.ours(jnp.ones_like(x), kernel))


def test_second_derivatives_of_a_wide_kernel() -> None:
    x, kernel, _ = Case("dense").arrays("bfloat16")

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (Case("dense").ours(x, kernel).astype(jnp.float32) ** 2).mean()

    def norm_of_gradient(kernel: jax.Array) -> jax.Array:
        dx, dkernel = jax.grad(loss, argnums=(0, 1))(x, kernel)
        return (dx.astype(jnp.float32) ** 2).sum() + (dkernel**2).sum()

    wide = kernel.astype(jnp.float32)
    narrow = jax.grad(norm_of_gradient)(kernel).astype(jnp.float32)
    np.testing.assert_allclose(jax.grad(norm_of_gradient)(wide), narrow, atol=0.05 * narrow.max())
