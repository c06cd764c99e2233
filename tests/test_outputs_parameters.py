"""The fingerprint tells different parameters apart, and nothing else."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from effnetv2_jax.outputs.parameters import parameter_table, params_sha256

PARAMS = {
    "stem": {"kernel": np.arange(24, dtype=np.float32).reshape(8, 3), "bias": np.zeros(8)},
    "head": {"scale": np.ones(8, jnp.bfloat16)},
}


def test_is_the_same_in_every_process_and_version() -> None:
    expected = "b216dbd9077cf2db0f967c4dae7cadde41709d40bdb22c12870f06f890537455"
    assert params_sha256(PARAMS) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"stem": PARAMS["stem"], "top": PARAMS["head"]},
        {"stem": PARAMS["stem"], "head": {"scale": np.ones(8, np.float16)}},
        {"stem": PARAMS["stem"], "head": {"scale": np.ones((8, 1), jnp.bfloat16)}},
        {"stem": PARAMS["stem"], "head": {"scale": np.full(8, 1.0078125, jnp.bfloat16)}},
        {"stem": PARAMS["stem"]},
    ],
)
def test_tells_names_dtypes_shapes_and_values_apart(changed: dict) -> None:
    assert params_sha256(changed) != params_sha256(PARAMS)


def test_ignores_order_and_where_the_arrays_are(mesh: jax.sharding.Mesh) -> None:
    expected = params_sha256(PARAMS)
    assert params_sha256(dict(reversed(PARAMS.items()))) == expected
    float32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
    for spec in (PartitionSpec(), PartitionSpec("data")):
        placed = jax.device_put(float32, NamedSharding(mesh, spec))
        assert params_sha256(placed) == params_sha256(float32)


def test_transposed_memory_does_not_count() -> None:
    kernel = np.arange(6.0).reshape(2, 3)
    assert params_sha256({"k": np.asfortranarray(kernel)}) == params_sha256({"k": kernel})


def test_table_lists_names_shapes_and_the_total() -> None:
    table = parameter_table(PARAMS)
    assert "stem/kernel" in table
    assert "(8, 3)" in table
    assert "Total: 40" in table


def test_outputs_import_no_tensorflow_and_load_lazily() -> None:
    script = (
        "import sys, effnetv2_jax.outputs\n"
        "assert not {'orbax', 'tensorboardX', 'jax', 'clu'} & set(sys.modules)\n"
        "from effnetv2_jax.outputs import checkpoints, parameters, progress, workdir, writers\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
