"""What a process does before it touches a device."""

import contextlib
import ctypes
import os

import jax

from effnetv2_jax.parallel.distributed import Distributed, join
from effnetv2_jax.system.cache import cache_directory
from effnetv2_jax.system.paths import local_path


def start(distributed: Distributed = "auto", *, cache: bool = True) -> None:
    """Meets the other processes of a run, and sets up the CPU and the compilation cache.

    With several processes, JAX's preemption service listens for SIGTERM from then on: the signal
    ends nothing by itself any more.

    Args:
      distributed: as `Experiment.distributed`: `auto` asks the environment whether this process is
        one of several, `on` makes it an error if that does not say so, `off` leaves it alone.
      cache: False leaves the compilation cache as JAX has it.

    Raises:
      StartupError: the other processes cannot be met; the message says what to set.

    The cache lies in $JAX_COMPILATION_CACHE_DIR, or else in `xla` in the package's cache directory;
    an empty $JAX_COMPILATION_CACHE_DIR switches it off.
    """
    add_threads_for_virtual_devices()
    _keep_freed_memory()
    join(distributed)
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache and given is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    elif given and local_path(given) != given:
        jax.config.update("jax_compilation_cache_dir", local_path(given))


def add_threads_for_virtual_devices() -> None:
    """Lets several virtual CPU devices run on few cores; call it before JAX touches a device.

    A collective holds one thread of XLA's per device until all devices have come to it, and
    several may be under way: with only a thread per core, they would wait for each other for ever.
    """
    devices: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if devices > 1:
        os.environ.setdefault("NPROC", str(4 * devices))


def _keep_freed_memory() -> None:
    """Spares training on CPU the page faults of buffers that XLA allocates anew every step.

    They took a quarter to a third of a step's time. glibc keeps what is freed only on the heap of
    the main thread, which therefore has to be the one that runs the program. Half of the machine's
    memory is set aside for that heap in huge pages; none of it is taken before it is used.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    m_mmap_max, m_trim_threshold = -4, -1  # The names and values of glibc's <malloc.h>.
    madv_hugepage = 14
    with contextlib.suppress(OSError, AttributeError, ValueError):  # Another C library or system.
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
        page = os.sysconf("SC_PAGE_SIZE")
        size = os.sysconf("SC_PHYS_PAGES") // 2 * page
        libc.malloc.restype = ctypes.c_void_p
        block = libc.malloc(ctypes.c_size_t(size))
        if block is not None:
            start = ctypes.c_void_p(-(-block // page) * page)
            libc.madvise(start, ctypes.c_size_t(size - page), madv_hugepage)
            libc.free(ctypes.c_void_p(block))
