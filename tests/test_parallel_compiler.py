"""Compiler options where this XLA knows them, and programs that are compiled once."""

from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from effnetv2_jax.parallel import compiler


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    compiler._known_cpu_options.cache_clear()
    yield
    compiler._known_cpu_options.cache_clear()


def convolution_of(options: dict[str, str | bool]) -> str:
    """The program of a convolution of a size for which XLA has several libraries."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    arrays = jnp.ones((8, 56, 56, 32)), jnp.ones((3, 3, 32, 64))
    text = jax.jit(convolve, compiler_options=options).lower(*arrays).compile().as_text()
    assert text is not None
    return text


def test_this_xla_knows_the_options_and_they_choose_the_library() -> None:
    options = compiler.compiler_options()
    assert options == compiler._CPU
    assert "ynn_fusion" not in convolution_of(options)


@pytest.mark.parametrize(
    "unknown", [{"xla_cpu_no_such_option": True}, dict.fromkeys(compiler._CPU, "NO_SUCH_VALUE")]
)
def test_options_that_xla_does_not_know_are_left_out(unknown: dict[str, str | bool]) -> None:
    with mock.patch.object(compiler, "_CPU", unknown):
        assert compiler.compiler_options(jax.devices()[0]) == {}


def test_other_platforms_have_none() -> None:
    class Tpu:
        platform = "tpu"

    assert compiler.compiler_options(Tpu()) == {}  # type: ignore[arg-type]


def test_a_function_is_compiled_once_for_arrays_of_one_kind() -> None:
    traced = []

    @jax.jit
    def total(arrays: dict[str, jax.Array], factor: jax.Array) -> jax.Array:
        traced.append(arrays["a"].shape)
        return factor * arrays["a"].sum()

    call = compiler.compiled_when_called(total, jax.devices()[0])
    for shape in [(2,), (2,), (3,), (2,)]:
        assert call({"a": jnp.ones(shape)}, jnp.float32(2)) == 2 * shape[0]
    assert traced == [(2,), (3,)]
    assert call({"a": jnp.ones((2,), jnp.int32)}, jnp.float32(2)) == 4
    assert len(traced) == 3
