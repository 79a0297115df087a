"""Connects the processes of a multi-host run, and sets the number of CPU devices."""

import contextlib
import os
from collections.abc import Iterator

import jax

from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.utils.locks import lock_directory
from emofuse_jax.utils.system import available_cores

HEARTBEAT_TIMEOUT_SECONDS = 30
"""Seconds without a heartbeat after which a process counts as lost and the others stop."""
MAX_CPU_DEVICES = 8
"""Maximum number of CPU devices: each one stores a copy of the data and has only its share of the memory."""


def initialize(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the other processes of a run; does nothing for a run on one machine.

    Uses the three arguments if they are set. If all are None, the environment of a Slurm step of several
    tasks or of a TPU slice with several hosts on GKE is used; without either, nothing is done. Must be called
    before anything queries the devices of jax.

    Args:
      coordinator_address: `host:port` of the first process; or `auto` to let JAX detect the cluster, which
        ignores the other two arguments.
      num_processes: number of processes.
      process_id: index of this process, from 0.

    Raises:
      ValueError: if only some of the three arguments are set, if `process_id` is not below `num_processes`,
        if the cluster is not detected or the connection fails, if the devices have already been queried, or
        if the environment variable SLURM_STEP_NUM_TASKS is not a number.
    """
    process_flags = [coordinator_address, num_processes, process_id]
    if coordinator_address == "auto":
        coordinator_address = num_processes = process_id = None
    elif any(value is not None for value in process_flags):
        if any(value is None for value in process_flags):
            raise ValueError(
                "--coordinator_address, --num_processes, --process_id: expected all three or none of them"
            )
    elif not (is_on_slurm() or is_on_tpu_pod()):
        return
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
        )
    except RuntimeError as error:
        raise ValueError(
            f"cannot connect to the other processes of the run: {error}; check --coordinator_address and that"
            " all processes are started"
        ) from error


def use_one_device_per_core() -> None:
    """Makes each CPU core a device, up to eight, unless JAX_NUM_CPU_DEVICES is set.

    For independent work per device: two replicas on one core each take 0.5 to 0.7 of the time of running one
    after the other on both cores. Must be called before anything queries the devices of jax.

    Raises:
      RuntimeError: from JAX, if the devices have already been queried and their number would change.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", min(available_cores(), MAX_CPU_DEVICES))


def is_on_slurm() -> bool:
    """Returns True in a Slurm step of several tasks, according to SLURM_STEP_NUM_TASKS; else False.

    Raises:
      ValueError: if this environment variable is set, but is not a number.
    """
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_first_process() -> bool:
    """Returns True in the first process, which writes files and prints, and False in all others."""
    return jax.process_index() == 0


@contextlib.contextmanager
def exclusive_workdir(workdir: str) -> Iterator[None]:
    """Locks a workdir for the run in this `with` block, in all of its processes; unlocks it at the end.

    Yields nothing. Only the first process locks the directory, which is created if necessary, with the file
    `lock` in it, which stays there; the lock is also released if the process is killed. On file systems
    without locks it only warns. If locking fails, every process raises an error.

    Raises:
      ValueError: if another run uses the workdir; in all but the first process also if the first one could
        not create or open the lock file.
      OSError: in the first process, if it cannot create the directory, or create or open the lock file.
    """
    lock_error, lock_stack = None, contextlib.ExitStack()
    with lock_stack:
        if is_first_process():
            try:
                lock_stack.enter_context(lock_directory(workdir))
            except (OSError, ValueError) as error:
                lock_error = error
        if broadcast_decision(lock_error is not None):
            raise lock_error or ValueError(f"{workdir}: the first process could not lock it; see its error")
        yield


def is_on_tpu_pod() -> bool:
    """Returns True if TPU_WORKER_HOSTNAMES names several hosts, as in a TPU slice on GKE; else False."""
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
