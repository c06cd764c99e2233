"""Training: state, optimizer, one step, and the loop that calls it.

Called as a function, the package is `effnetv2_jax.api.train`.
"""

from effnetv2_jax.system.callable_module import make_callable

make_callable(__name__, "effnetv2_jax.api", "train")
