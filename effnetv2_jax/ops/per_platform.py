"""Operations that are lowered to one thing on the CPU and to another elsewhere.

The choice is made when a program is lowered, so that one traced function can be exported for every
platform.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Operation = Callable[..., jax.Array]

_plain_only = contextvars.ContextVar("plain_only", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Traces JAX's own operations instead of these primitives, for programs that read them.

    A function that was traced before keeps what it has.
    """
    token = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(token)


def only_plain_operations() -> bool:
    """Whether this is inside `plain_operations`."""
    return _plain_only.get()


def platform_primitive(name: str, plain: Operation, cpu: Operation) -> Primitive:
    """A primitive without derivatives, which are the caller's to define.

    Args:
      plain: what it computes, of arrays and of keyword arguments that can be hashed.
      cpu: the same, lowered where the platform is the CPU.
    """

    def choose(*arrays: jax.Array, **params: Any) -> jax.Array:
        on_cpu, elsewhere = (functools.partial(each, **params) for each in (cpu, plain))
        return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)

    @functools.cache
    def compiled(**params: Any) -> Operation:
        return jax.jit(functools.partial(choose, **params))

    def shape_of(*avals: Any, **params: Any) -> Any:
        structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        out = jax.eval_shape(functools.partial(plain, **params), *structs)
        return jax.core.ShapedArray(out.shape, out.dtype)

    def batched(arrays: Any, axes: Any, **params: Any) -> tuple[jax.Array, int]:
        return jax.vmap(functools.partial(choose, **params), in_axes=axes)(*arrays), 0

    primitive = Primitive(name)
    primitive.def_impl(lambda *arrays, **params: compiled(**params)(*arrays))
    primitive.def_abstract_eval(shape_of)
    mlir.register_lowering(primitive, mlir.lower_fun(choose, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


def computed_once(compute: Operation, *arrays: jax.Array, **params: Any) -> jax.Array:
    """`compute(*arrays, **params)`, written to memory, however many operations use it.

    XLA's CPU backend computes what costs little to it, products and sums, anew inside of each use,
    and takes apart any barrier before it decides so. It does not look into the branches of a
    condition that it does not know.
    """
    compute = functools.partial(compute, **params)
    out = jax.eval_shape(compute, *arrays)
    return lax.cond(
        lax.optimization_barrier(jnp.array(True)),
        compute,
        lambda *_: jnp.zeros(out.shape, out.dtype),
        *arrays,
    )
