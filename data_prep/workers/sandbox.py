"""What a worker process may use: memory, one core, and one thread."""

import contextlib
import os
import resource
from collections.abc import Iterator

MEMORY = 8 << 30
"""Bytes a worker may hold. The decoder of the largest film keeps up to 17 frames of 100 MB, we keep 0.6 GB of
pictures, and opening a large encoder takes three times its 1.3 GB; what goes beyond is no honest clip.
"""
OUT_OF_MEMORY = 77
"""Exit code of a worker that had asked for more."""
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # many processes on one accelerator starve each other
    "NPROC": "1",  # sizes XLA's thread pool: one process a core, one thread a process
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


@contextlib.contextmanager
def environment(device: str = "cpu") -> Iterator[None]:
    """A child takes its environment when it starts, before it imports JAX; `device`: of `FaceSettings`."""
    wanted = dict(ENVIRONMENT)
    if device == "accelerator":
        del wanted["JAX_PLATFORMS"]
        wanted["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the first would take most of its memory
    before = {name: os.environ.get(name) for name in wanted}
    flags = f"{before['XLA_FLAGS'] or ''} {wanted['XLA_FLAGS']}".strip()
    os.environ.update(wanted, XLA_FLAGS=flags)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def core_of(worker: int, workers: int) -> int | None:
    """The core of the n-th worker, round robin over those of this process; None: any.

    A lone worker stays free: Apache Beam starts many of them, each beside its own parent.
    """
    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[worker % len(allowed)]


def confine(core: int | None, device: str = "cpu") -> None:
    """Binds this process, and the threads that it will start, to a core and, on the CPU, to MEMORY.

    The kernel refuses what goes beyond, so that no watcher can come too late; it counts private memory that
    can be written, not what libraries and JAX map beside it. macOS takes the limit and does not heed it.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    if device != "cpu":  # a driver may map more than that
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([MEMORY, *lower]), hard))


def require_accelerator() -> None:
    """Raises ValueError where JAX finds neither GPU nor TPU."""
    import jax

    if jax.default_backend() == "cpu":
        raise ValueError("--face_device=accelerator: JAX finds no GPU or TPU here")
