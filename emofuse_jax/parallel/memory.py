"""How much memory of a device a compiled program takes, and how much there is."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from emofuse_jax.utils.system import available_memory_bytes

USABLE_MEMORY_FRACTION = 0.9
"""Of a device's memory that programs may plan with: allocators fragment."""
REDUCE_MEMORY_HINT = (
    "lower data.batch_size or train.eval_batch_size, set model.dtype=bfloat16, data.mode=stream, or"
    " mesh.fsdp=True on several devices"
)
BYTES_PER_GB = 1e9


@contextlib.contextmanager
def explain_oom(
    get_program_bytes: Callable[[], int] | None = None, hint: str = REDUCE_MEMORY_HINT
) -> Iterator[None]:
    """Raises ValueError, one line, where a device runs out of memory in the block.

    `get_program_bytes` gives the bytes that the program takes, `hint` says what to change.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        usage = (
            f"; the program takes {get_program_bytes() / BYTES_PER_GB:.2f} GB of a device"
            if get_program_bytes
            else ""
        )
        raise ValueError(f"{oom_message(error)}{usage}; {hint}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def oom_message(error: Exception) -> str:
    """XLA's words in one line."""
    return f"out of memory: {str(error).splitlines()[0]}"


def program_memory_bytes(compiled) -> int:
    """Arguments, results and temporary arrays of a compiled program, on one device."""
    memory = compiled.memory_analysis()
    # donated arguments are not counted twice
    output_bytes = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + max(output_bytes, 0) + memory.temp_size_in_bytes


def usable_device_bytes() -> int:
    """Memory that each local device may use: its own, or of the host's free memory its part."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(USABLE_MEMORY_FRACTION * stats["bytes_limit"])
    return int(USABLE_MEMORY_FRACTION * available_memory_bytes() / len(devices))
