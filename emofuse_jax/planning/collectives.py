"""What the devices tell each other, read from a compiled program's text."""

import dataclasses
import math
import re

COLLECTIVE_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_COLLECTIVE_PATTERN = re.compile(
    rf"= (?P<result>.+?) (?P<kind>{'|'.join(COLLECTIVE_KINDS)})(?P<start>-start)?\("
)
_ARRAY_PATTERN = re.compile(r"([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")
_BOOL_ARRAY_PATTERN = re.compile(r"pred\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation; several arrays go in it where the compiler combined them."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    is_overlapped: bool
    """It is begun and awaited in two places, with other work between."""


def read_collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, `compiled.as_text()`, in its order.

    Loops are counted once. Of an operation in two parts the result stands beside its operand: the arrays
    are those of the second half.
    """
    collectives = []
    for line in text.splitlines():
        match = _COLLECTIVE_PATTERN.search(line)
        if not match:
            continue
        arrays = _parse_arrays(match["result"])
        if match["start"] and len(arrays) > 1:
            arrays = arrays[len(arrays) // 2 :]
        shapes, byte_counts = tuple(array[0] for array in arrays), [array[1] for array in arrays]
        collectives.append(Collective(match["kind"], shapes, sum(byte_counts), bool(match["start"])))
    return collectives


def _parse_arrays(result: str) -> list[tuple[tuple[int, ...], int]]:
    """Shape and bytes of each array in a result's type."""
    arrays = []
    for _, bits, shape in _ARRAY_PATTERN.findall(result):
        dims = _parse_dims(shape)
        arrays.append((dims, math.prod(dims) * int(bits) // 8))
    arrays += [
        (_parse_dims(shape), math.prod(_parse_dims(shape))) for shape in _BOOL_ARRAY_PATTERN.findall(result)
    ]
    return arrays


def _parse_dims(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def find_gradient_reductions(
    collectives: list[Collective], kernel_shapes: set[tuple[int, ...]]
) -> list[Collective]:
    """Those that reduce gradients: an array in them has the shape of a kernel.

    What is left reduces statistics of norms and covariances, losses and metrics, before gradients are there.
    """
    reduction_kinds = ("all-reduce", "reduce-scatter")
    return [
        collective
        for collective in collectives
        if collective.kind in reduction_kinds and any(shape in kernel_shapes for shape in collective.shapes)
    ]
