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


def test_jit_takes_the_options_and_can_be_traced_again() -> None:
    def widen(x: jax.Array, *, by: int = 2) -> jax.Array:
        return x * by

    ours = compiler.jit(widen, static_argnames="by")
    with mock.patch.object(jax, "jit", wraps=jax.jit) as real:
        assert ours(jnp.ones(3), by=3).tolist() == [3, 3, 3]
    assert real.call_args.kwargs["compiler_options"] == compiler.compiler_options()
    assert jax.grad(ours)(1.0) == 2
    assert jax.jit(lambda x: ours(x) + 1)(1.0) == 3
    assert jax.jit(lambda: ours(1.0))() == 2
    assert jax.vmap(ours)(jnp.arange(2.0)).tolist() == [0, 2]
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        compiler.jit(widen, compiler_options={"xla_no_such_option": True})(jnp.ones(3))
