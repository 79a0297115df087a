"""Measures the device memory of compiled programs, and explains out-of-memory errors."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from emofuse_jax.utils.system import available_memory_bytes

USABLE_MEMORY_FRACTION = 0.9
"""Fraction of a device's memory that programs can plan with, because allocators fragment."""
REDUCE_MEMORY_HINT = (
    "lower data.batch_size or train.eval_batch_size, set model.dtype=bfloat16, data.mode=stream, or"
    " mesh.fsdp=True on several devices"
)
"""Default advice of the error message."""
BYTES_PER_GB = 1e9


@contextlib.contextmanager
def explain_oom(
    get_program_bytes: Callable[[], int] | None = None, hint: str = REDUCE_MEMORY_HINT
) -> Iterator[None]:
    """Explains the error if a device runs out of memory in this `with` block; yields nothing.

    Args:
      get_program_bytes: returns the bytes that the program needs on a device, for the message; None leaves
        them out.
      hint: advice for the message, which follows "to use less memory,"; by default to change config fields
        such as `data.batch_size`.

    Raises:
      ValueError: if a device runs out of memory; the message has one line. Other errors pass through
        unchanged.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        usage = (
            f"; the program needs {get_program_bytes() / BYTES_PER_GB:.2f} GB per device"
            if get_program_bytes
            else ""
        )
        raise ValueError(f"{oom_message(error)}{usage}; to use less memory, {hint}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Returns True if the error comes from JAX and says that a device ran out of memory; else False."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def oom_message(error: Exception) -> str:
    """Returns `out of memory: ` and the first line of the error's message."""
    return f"out of memory: {str(error).splitlines()[0]}"


def program_memory_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the number of bytes that a compiled program needs on one device.

    This is the sum over its arguments, results and temporary arrays. Results that reuse the memory of donated
    arguments are not counted twice.
    """
    memory = compiled.memory_analysis()
    assert memory is not None  # XLA measures it on every platform
    # results that reuse the memory of donated arguments are not counted twice
    output_bytes = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + max(output_bytes, 0) + memory.temp_size_in_bytes


def usable_device_bytes() -> int:
    """Returns the bytes of memory that programs can use on each local device.

    This is the limit that the first local device reports. For devices that report none, such as CPUs, it is
    the free memory of the host divided by the number of local devices of this process. Both are multiplied by
    USABLE_MEMORY_FRACTION (0.9).
    """
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(USABLE_MEMORY_FRACTION * stats["bytes_limit"])
    return int(USABLE_MEMORY_FRACTION * available_memory_bytes() / len(devices))
