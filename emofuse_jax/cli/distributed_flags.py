"""The flags by which the processes of a multi-host run find each other."""

from absl import flags

COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0, for several processes; auto: the cluster knows."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")


def initialize_distributed() -> None:
    """Joins the others, before anything asks jax for its devices; alone it does nothing."""
    from emofuse_jax.parallel import distributed

    distributed.initialize(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
