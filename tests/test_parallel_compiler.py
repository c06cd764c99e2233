"""Compiler options where this XLA knows them."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from effnetv2_jax.parallel import compiler


def convolution_of(options: compiler.CompilerOptions) -> str:
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
    assert options == compiler._OPTIONS["cpu"]
    assert "ynn_fusion" not in convolution_of(options)


@pytest.mark.parametrize(
    "unknown",
    [{"xla_cpu_no_such_option": True}, {"xla_cpu_experimental_ynn_fusion_type": "NO_SUCH_VALUE"}],
)
def test_an_option_that_xla_does_not_know_is_left_out(unknown: compiler.CompilerOptions) -> None:
    known: compiler.CompilerOptions = {"xla_cpu_prefer_vector_width": "512"}
    with mock.patch.dict(compiler._OPTIONS, cpu=unknown | known):
        assert compiler.compiler_options(jax.devices()[0]) == known


def test_other_platforms_have_none() -> None:
    class Tpu:
        platform = "tpu"

    assert compiler.compiler_options(Tpu()) == {}


def test_what_the_environment_sets_is_not_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    name, *others = compiler._OPTIONS["cpu"]
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=")
    assert list(compiler.compiler_options()) == others
