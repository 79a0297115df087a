"""What a TPU chip can do, by the tables of docs.cloud.google.com/tpu/docs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip; a program reaches less."""

    flops: float
    """bfloat16 operations a second; float32 products are made of bfloat16 passes too, by default one."""
    memory_bytes: float
    """Bytes of HBM."""
    memory_bytes_per_second: float
    """Bytes a second to and from HBM."""
    link_bytes_per_second: float
    """Bytes a second out to the other chips, half of the bidirectional figure."""


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 400e9),
}
SLICE_SHAPES = ("1x1", "2x2", "4x4", "8x8", "16x16")
"""Of v5e, for weak scaling."""


def parse_topology(topology: str) -> tuple[Chip, str]:
    """Splits `v5e:4x4` into its chip and its shape, which may be empty: all of SLICE_SHAPES.

    Raises ValueError on an unknown chip.
    """
    chip_name, _, slice_shape = topology.partition(":")
    if chip_name not in CHIPS:
        raise ValueError(f"--topology={topology}: expected a chip of {', '.join(CHIPS)}, as in v5e:4x4")
    return CHIPS[chip_name], slice_shape
