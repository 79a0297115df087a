"""Joins the processes of a multi-host run, and says which devices each has."""

import contextlib
import os
from collections.abc import Iterator

import jax

from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.utils.locks import lock_directory
from emofuse_jax.utils.system import available_cores

HEARTBEAT_TIMEOUT_SECONDS = 30
"""Seconds after which a process that is not heard of counts as lost, and the others stop."""
MAX_CPU_DEVICES = 8
"""CPU devices that are made: each holds the data again, and its share of the memory alone."""


def initialize(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the others: by the three flags, or by itself on Slurm and GKE's TPU slices.

    With `auto` for an address JAX asks the cluster, whatever it is. Must run before anything asks jax for its
    devices. Alone on one machine it does nothing.
    """
    process_flags = [coordinator_address, num_processes, process_id]
    if coordinator_address == "auto":
        arguments = []
    elif any(value is not None for value in process_flags):
        if any(value is None for value in process_flags):
            raise ValueError("--coordinator_address, --num_processes and --process_id go together")
        arguments = process_flags
    elif is_on_slurm() or is_on_tpu_pod():
        arguments = []
    else:
        return
    try:
        jax.distributed.initialize(*arguments, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)
    except RuntimeError as error:
        raise ValueError(f"multi-process start: {error}") from error


def use_one_device_per_core() -> None:
    """Makes a core of a CPU a device, up to eight, where JAX_NUM_CPU_DEVICES does not say how many.

    For work that the devices do apart: two replicas on a core each are done in 0.5 to 0.7 of the time that
    they take one after the other on both. Must run before anything asks jax for its devices.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", min(available_cores(), MAX_CPU_DEVICES))


def is_on_slurm() -> bool:
    """True in a Slurm step of several tasks."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_first_process() -> bool:
    """True in the process that writes and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def exclusive_workdir(workdir: str) -> Iterator[None]:
    """`lock_directory` of the run as a whole: its first process holds the lock, and all of them are
    refused."""
    lock_error, lock_stack = None, contextlib.ExitStack()
    with lock_stack:
        if is_first_process():
            try:
                lock_stack.enter_context(lock_directory(workdir))
            except (OSError, ValueError) as error:
                lock_error = error
        if broadcast_decision(lock_error is not None):
            raise lock_error or ValueError(f"{workdir}: the first process was refused")
        yield


def is_on_tpu_pod() -> bool:
    """True on a worker of a TPU slice that spans hosts, where its environment names them (GKE)."""
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
