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
    """Connects this process to the others as the flags say; does nothing in a run of one process.

    Must run before the first use of a jax device.

    Raises:
      ValueError: only some of the flags are set, or the connection fails.
    """
    from emofuse_jax.parallel import distributed

    distributed.initialize(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
