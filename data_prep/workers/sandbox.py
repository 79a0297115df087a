"""What a worker process may use: memory, one core, and one thread."""

import contextlib
import os
import resource
from collections.abc import Iterator

MAX_WORKER_BYTES = 8 << 30
"""Bytes a worker may hold. The decoder of the largest film keeps up to 17 frames of 100 MB, we keep 0.6 GB of
pictures, and opening a large encoder takes three times its 1.3 GB; what goes beyond is no honest clip.
"""
OUT_OF_MEMORY_EXIT_CODE = 77
"""Exit code of a worker that had asked for more."""
WORKER_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # many processes on one accelerator starve each other
    "NPROC": "1",  # sizes XLA's thread pool: one process a core, one thread a process
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


@contextlib.contextmanager
def worker_environment(device: str = "cpu") -> Iterator[None]:
    """A child takes its environment when it starts, before it imports JAX; `device`: of `FaceSettings`."""
    variables = dict(WORKER_ENVIRONMENT)
    if device == "accelerator":
        del variables["JAX_PLATFORMS"]
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the first would take most of its memory
    previous_values = {name: os.environ.get(name) for name in variables}
    flags = f"{previous_values['XLA_FLAGS'] or ''} {variables['XLA_FLAGS']}".strip()
    os.environ.update(variables, XLA_FLAGS=flags)
    try:
        yield
    finally:
        for name, value in previous_values.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def choose_core(worker_index: int, num_workers: int) -> int | None:
    """The core of the n-th worker, round robin over those of this process; None: any.

    A lone worker stays free: Apache Beam starts many of them, each beside its own parent.
    """
    if num_workers == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    allowed_cores = sorted(os.sched_getaffinity(0))
    return allowed_cores[worker_index % len(allowed_cores)]


def limit_resources(core: int | None, device: str = "cpu") -> None:
    """Binds this process, and the threads that it will start, to a core and, on the CPU, to MAX_WORKER_BYTES.

    The kernel refuses what goes beyond, so that no watcher can come too late; it counts private memory that
    can be written, not what libraries and JAX map beside it. macOS takes the limit and does not heed it.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    if device != "cpu":  # a driver may map more than that
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    finite_limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([MAX_WORKER_BYTES, *finite_limits]), hard))


def require_accelerator() -> None:
    """Raises ValueError where JAX finds neither GPU nor TPU."""
    import jax

    if jax.default_backend() == "cpu":
        raise ValueError("--face_device=accelerator: JAX finds no GPU or TPU here")
