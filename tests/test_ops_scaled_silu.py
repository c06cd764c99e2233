"""scaled_silu and its derivatives against JAX's own, and against what they are lowered to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effnetv2_jax.ops.per_platform import plain_operations
from effnetv2_jax.ops.scaled_silu import scaled_silu

Function = Callable[..., Any]


def arrays(dtype: str, channels: int = 5) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x in groups, a scale for each group, and one shift for all."""
    random = np.random.default_rng(0)
    wide = jnp.promote_types(dtype, jnp.float32)
    x = jnp.asarray(3 * random.normal(size=(2, 3, 4, channels)), dtype)
    scale = jnp.asarray(random.normal(size=(2, 1, 1, channels)), wide)
    return x, scale, jnp.asarray(random.normal(size=channels), wide)


def ours(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    return scaled_silu(x, scale, shift, dtype=x.dtype)


def jaxs(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    return jax.nn.silu((x * scale + shift).astype(x.dtype))


def value(function: Function) -> Function:
    return function


def pulled_back(function: Function) -> Function:
    return lambda *inputs: jax.vjp(function, *inputs)[1](2 * inputs[0])


def pushed_forward(function: Function) -> Function:
    return lambda *inputs: jax.jvp(function, inputs, inputs)


def gradient(function: Function) -> Function:
    def loss(*inputs: jax.Array) -> jax.Array:
        return jnp.square(function(*inputs).astype(jnp.float32)).sum()

    return jax.grad(loss, (0, 1, 2))


def hessian_vector_product(function: Function) -> Function:
    return pushed_forward(gradient(function))


def gradient_of_the_gradient(function: Function) -> Function:
    def loss(*inputs: jax.Array) -> jax.Array:
        squares = [jnp.square(each.astype(jnp.float32)) for each in gradient(function)(*inputs)]
        return sum((square.sum() for square in squares), jnp.zeros(()))

    return jax.grad(loss, (0, 1, 2))


def mapped_over_groups(function: Function) -> Function:
    return jax.vmap(function, in_axes=(0, 0, None))


@pytest.mark.parametrize(
    "derived",
    [
        value,
        pulled_back,
        pushed_forward,
        gradient,
        hessian_vector_product,
        gradient_of_the_gradient,
        mapped_over_groups,
    ],
)
@pytest.mark.parametrize(
    ("dtype", "channels", "tolerance"),
    [("float32", 5, 1e-5), ("float32", 32, 1e-5), ("bfloat16", 5, 2e-2)],
)
def test_it_and_its_derivatives_are_jaxs(
    derived: Function, dtype: str, channels: int, tolerance: float
) -> None:
    inputs = arrays(dtype, channels)
    found = jax.tree.leaves(jax.jit(derived(ours))(*inputs))
    references = jax.tree.leaves(jax.jit(derived(jaxs))(*inputs))
    for result, reference in zip(found, references, strict=True):
        assert (result.shape, result.dtype) == (reference.shape, reference.dtype)
        result, reference = (np.asarray(each, np.float64) for each in (result, reference))
        np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance * abs(reference).max())


@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 1), (2, 1, 4, 5)])
def test_the_scale_may_have_any_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    x, _, shift = arrays("float32")
    scale = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    np.testing.assert_allclose(ours(x, scale, shift), jaxs(x, scale, shift), rtol=1e-5, atol=1e-6)


def test_a_vector_is_one_pixel() -> None:
    inputs = jnp.linspace(-3, 3, 5), jnp.ones(5), jnp.zeros(5)
    np.testing.assert_allclose(ours(*inputs), jaxs(*inputs), rtol=1e-5, atol=1e-6)


def test_it_runs_outside_of_a_compiled_function() -> None:
    inputs = arrays("float32")
    np.testing.assert_allclose(ours(*inputs), jaxs(*inputs), rtol=1e-5, atol=1e-6)


def test_the_backward_pass_keeps_the_inputs_and_nothing_else_of_their_size() -> None:
    x, scale, shift = arrays("float32")
    kept = jax.tree.leaves(jax.vjp(ours, x, scale, shift)[1])
    large = [leaf for leaf in kept if leaf.size >= x.size]
    assert large, "nothing is kept"
    for leaf in large:
        np.testing.assert_array_equal(leaf, x)


def test_it_is_lowered_for_every_platform() -> None:
    def conditions(platform: str) -> int:
        lowered = jax.jit(ours).trace(*arrays("float32")).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.case")

    assert conditions("cpu") == conditions("tpu") + 1
    assert conditions("cuda") == conditions("tpu")


def test_plain_operations_has_no_primitive_of_ours() -> None:
    with plain_operations():
        # Of a function that was not traced before.
        jaxpr = str(jax.make_jaxpr(lambda *inputs: ours(*inputs))(*arrays("float32")))
    assert "scaled_silu" not in jaxpr
    assert "logistic" in jaxpr
