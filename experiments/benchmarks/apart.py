"""One of the processors as a device of its own, where there is no accelerator."""

import os
from pathlib import Path

import jax


def keep_apart() -> None:
    """Leaves the first processor to XLA's programs, and the others to everything else.

    Steps do not then compete with compilation and input for processors, as they do not beside a GPU
    or TPU. Call it before other threads are started: they stay with the one that starts them.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", True)  # As accelerators always do.
    jax.devices()  # Starts XLA's threads.
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("--apart needs two processors")
    for thread in Path("/proc/self/task").iterdir():
        runs_programs = (thread / "comm").read_text().startswith("tf_XLA")
        os.sched_setaffinity(int(thread.name), {first} if runs_programs else others)
