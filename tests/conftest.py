"""What all tests share: devices, checked shapes, a compilation cache, `--slow` and `--long`."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

# Before anything imports Keras, which reads it once.
os.environ.setdefault("KERAS_BACKEND", "jax")

import fsspec
import jax
import pytest
import quick
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from jaxtyping import install_import_hook

from effnetv2_jax.parallel import compiler
from effnetv2_jax.parallel.startup import add_threads_for_virtual_devices

# Before anything imports them: from here on a wrong shape or dtype is an error in every test.
install_import_hook(
    ["effnetv2_jax.augment", "effnetv2_jax.ops"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "effnetv2_jax" / "tests"
OPTIONAL = {
    "slow": "a part of `.ci/run` runs it",
    "long": "a part of `.ci/run long` runs it",
}
"""Marks of tests that take too long to be run each time."""
DEVICES = 8
"""Virtual CPU devices, so that sharding is tested in-process; unsharded work uses the first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    for name in OPTIONAL:
        parser.addoption(f"--{name}", action="store_true", help=f"also run tests marked {name}")


def pytest_configure(config: pytest.Config) -> None:
    for name in OPTIONAL:
        config.addinivalue_line("markers", f"{name}: {OPTIONAL[name]}; skipped without --{name}")
    config.addinivalue_line(
        "markers", "parity: compares with another library; skipped where that is not installed"
    )
    jax.config.update("jax_num_cpu_devices", DEVICES)
    add_threads_for_virtual_devices()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for name in OPTIONAL:
        if config.getoption(f"--{name}"):
            continue
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{name}; add --{name} to run it"))


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For programs that run a few times, and take longer to compile than to run."""
    jax.config.update("jax_disable_most_optimizations", True)
    with mock.patch.dict(compiler._OPTIONS["cpu"], quick.options()):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for the length of a test, to tell faults in logic from rounding."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def mesh() -> jax.sharding.Mesh:
    """Eight devices along one axis, `data`."""
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


class ObjectStore(MemoryFileSystem):
    """A remote file system within the process."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}


@pytest.fixture
def remote() -> Iterator[epath.Path]:
    """A run's directory in an object store, which starts empty."""
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("where TensorFlow is installed, etils opens remote paths with it")
    fsspec.register_implementation("s3", ObjectStore, clobber=True)
    yield epath.Path("s3://bucket/run")
    ObjectStore.store.clear()
