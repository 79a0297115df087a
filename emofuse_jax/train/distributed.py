"""Joins the processes of a multi-host run."""

import os

import jax


def initialize(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process to the others: by the three flags, or by itself on Slurm and TPU pods.

    Must run before anything asks jax for its devices. Alone on one machine it does nothing.
    """
    given = [coordinator_address, num_processes, process_id]
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise ValueError("--coordinator_address, --num_processes and --process_id go together")
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    elif on_slurm() or on_tpu_pod():
        jax.distributed.initialize()


def on_slurm() -> bool:
    """True in a Slurm step of several tasks."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))) > 1


def on_tpu_pod() -> bool:
    """True on a worker of a TPU slice that spans hosts."""
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
