"""Peak performance of TPU chips, from the tables of docs.cloud.google.com/tpu/docs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak performance of one chip; a real program reaches less."""

    flops: float
    """bfloat16 operations per second; float32 products also run as bfloat16 passes, by default as one."""
    memory_bytes: float
    """HBM size in bytes."""
    memory_bytes_per_second: float
    """HBM bandwidth in bytes per second."""
    link_bytes_per_second: float
    """Outgoing bandwidth to the other chips in bytes per second, half of the bidirectional figure."""


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 400e9),
}
"""Chips by name."""
SLICE_SHAPES = ("1x1", "2x2", "4x4", "8x8", "16x16")
"""Slice shapes of v5e for weak scaling; planned if a topology names only a chip."""


def parse_topology(topology: str) -> tuple[Chip, str]:
    """Splits a topology such as `v5e:4x4` into the chip and the slice shape.

    Returns:
      A tuple: the peak performance of the chip (`flops`, bfloat16 operations per second; `memory_bytes`; and
      bandwidths in bytes per second, `memory_bytes_per_second` and `link_bytes_per_second`), and the slice
      shape as text, such as `4x4`. The slice shape is an empty string if the topology names only a chip; the
      caller then plans all of SLICE_SHAPES.

    Raises:
      ValueError: if the chip is unknown. The slice shape is not checked.
    """
    chip_name, _, slice_shape = topology.partition(":")
    if chip_name not in CHIPS:
        raise ValueError(
            f"--topology={topology}: expected one of the chips {', '.join(CHIPS)}, for example v5e:4x4"
        )
    return CHIPS[chip_name], slice_shape
