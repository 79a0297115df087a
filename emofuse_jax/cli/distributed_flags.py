"""Flags that connect the processes of a multi-host run."""

from absl import flags

COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0 in a run of several processes; auto: detect the cluster.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def initialize_distributed() -> None:
    """Connects this process to the others as the flags say; returns nothing.

    The flags are --coordinator_address (`host:port` of process 0, or `auto`: JAX detects the cluster),
    --num_processes and --process_id. Without them, the function uses the environment of Slurm or of a TPU
    slice on GKE, and does nothing in a run of one process. Must run before the first use of a jax device.

    Raises:
      ValueError: only some of the flags are set, the connection fails, a device was used before, or the
        environment variable SLURM_STEP_NUM_TASKS is not a number.
    """
    from emofuse_jax.parallel import distributed

    distributed.initialize(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
