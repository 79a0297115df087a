"""Limits a worker process to an amount of memory, one core, and one thread."""

import contextlib
import os
import resource
from collections.abc import Iterator

MAX_WORKER_BYTES = 8 << 30
"""Memory limit of a worker in bytes.

Decoding the largest video needs up to 17 frames of 100 MB, sampled frames take 0.6 GB, and opening a large
encoder takes three times its 1.3 GB. Only malicious files need more.
"""
OUT_OF_MEMORY_EXIT_CODE = 77
"""Exit code of a worker that exceeded the limit."""
WORKER_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # many processes on one accelerator block each other
    "NPROC": "1",  # size of XLA's thread pool: each process has one core and one thread
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


@contextlib.contextmanager
def worker_environment(device: str = "cpu") -> Iterator[None]:
    """Sets the environment variables of a worker in the `with` block, and restores them after; yields None.

    They restrict JAX, BLAS, OpenMP and OpenCV to one thread, and JAX to the CPU. A process that is started in
    the block inherits them; they must be set before it imports JAX. If `device` is `accelerator` and not
    `cpu`, JAX is not restricted to the CPU, and does not reserve the accelerator's memory.
    """
    variables = dict(WORKER_ENVIRONMENT)
    if device == "accelerator":
        del variables["JAX_PLATFORMS"]
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else the first process takes most memory
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
    """Returns the core of a worker, round robin over the cores of this process, or None for no fixed core.

    `worker_index` counts from 0 to `num_workers` - 1. A single worker has no fixed core, because Apache Beam
    starts many processes with one worker each. The result is also None on systems without CPU affinity.
    """
    if num_workers == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    allowed_cores = sorted(os.sched_getaffinity(0))
    return allowed_cores[worker_index % len(allowed_cores)]


def limit_resources(core: int | None, device: str = "cpu") -> None:
    """Binds this process to one core (None: any core) and limits its memory.

    The limit is 8 GiB (MAX_WORKER_BYTES) of private writable memory, without files that libraries and JAX
    map. The kernel enforces it at each allocation, so it can't be exceeded even for a moment. macOS accepts
    the limit but does not enforce it. If `device` is `accelerator` and not `cpu`, memory is not limited.
    Raises OSError if this process may not use the core, AttributeError if the system has no CPU affinity and
    `core` is not None.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    if device != "cpu":  # a GPU driver may map more memory than that
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    finite_limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([MAX_WORKER_BYTES, *finite_limits]), hard))


def require_accelerator() -> None:
    """Raises ValueError if JAX finds no GPU or TPU; returns nothing.

    Raises RuntimeError if JAX can't start on the platforms that the environment variable JAX_PLATFORMS names.
    """
    import jax

    if jax.default_backend() == "cpu":
        raise ValueError("--face_device=accelerator: JAX found no GPU or TPU; use --face_device=cpu")
