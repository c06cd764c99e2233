"""Attention of every token to every token."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def attention(
    query: Float[Array, "B T N D"], key: Float[Array, "B S N D"], value: Float[Array, "B S N D"]
) -> Float[Array, "B T N D"]:
    """`softmax(query key' / sqrt(D)) value` for each of N heads, the softmax in float32 or wider.

    As `jax.nn.dot_product_attention`, which serves bfloat16. In float32 its order of axes takes
    nearly twice as long on the CPU, and it rounds the softmax of float64 to float32.
    """
    if query.dtype == jnp.bfloat16:
        return jax.nn.dot_product_attention(query, key, value)
    # Heads before tokens, so that all that is multiplied lies together.
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    logits = jnp.einsum("bntd,bnsd->bnts", query * query.shape[-1] ** -0.5, key)
    return jnp.einsum("bnts,bnsd->bntd", jax.nn.softmax(logits), value).swapaxes(1, 2)
