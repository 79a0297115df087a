"""How much memory of a device a compiled program takes, and how much there is."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from emofuse_jax.utils.system import available_memory_bytes

SHARE = 0.9
"""Of a device's memory that programs may plan with: allocators fragment."""


LOWER = (
    "lower data.batch_size or train.eval_batch_size, set model.dtype=bfloat16, data.mode=stream, or"
    " mesh.fsdp=True on several devices"
)
GB = 1e9


@contextlib.contextmanager
def exhaustion_told(taken: Callable[[], int] | None = None, lower: str = LOWER) -> Iterator[None]:
    """ValueError, one line, where a device runs out of memory: the bytes `taken`, and what to `lower`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not exhausted(error):
            raise
        takes = f"; the program takes {taken() / GB:.2f} GB of a device" if taken else ""
        raise ValueError(f"{said(error)}{takes}; {lower}") from error


def exhausted(error: Exception) -> bool:
    """Whether a device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def said(error: Exception) -> str:
    """XLA's words in one line."""
    return f"out of memory: {str(error).splitlines()[0]}"


def compiled_bytes(compiled) -> int:
    """Arguments, results and temporary arrays of a compiled program, on one device."""
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes  # donated arguments are not counted twice
    return memory.argument_size_in_bytes + max(own, 0) + memory.temp_size_in_bytes


def device_bytes() -> int:
    """Memory that each local device may use: its own, or of the host's free memory its part."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    return int(SHARE * available_memory_bytes() / len(devices))
