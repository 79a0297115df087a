"""How much memory of a device a compiled program takes, and how much there is."""

import jax

from emofuse_jax.host import available_memory

SHARE = 0.9
"""Of a device's memory that programs may plan with: allocators fragment."""


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
    return int(SHARE * available_memory() / len(devices))
