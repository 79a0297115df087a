"""Finds the communication between devices in the text of a compiled program."""

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
    """One collective operation; it has several arrays if the compiler combined several operations."""

    kind: str
    """One of COLLECTIVE_KINDS."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each array."""
    bytes: int
    """Bytes of all arrays on one device."""
    is_overlapped: bool
    """True if it has separate start and done operations, so that other work can run in between."""


def read_collectives(text: str) -> list[Collective]:
    """Returns the collectives of a compiled program in program order; the list is empty if there are none.

    Each one has `kind` (such as `all-reduce`), `shapes` (of its arrays), `bytes` (of all its arrays on one
    device) and `is_overlapped` (True if it has separate start and done operations). An operation inside a
    loop is counted once. The result of a start operation contains the operands followed by the results; only
    the second half is counted.

    Args:
      text: HLO text, `compiled.as_text()`.
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
    """Returns a tuple (shape, bytes) for each array in the result type of an HLO operation.

    `result` is the text of the type, such as `(f32[2,3], pred[4])`. Arrays of numbers come in its order, bool
    arrays (`pred`) after them; anything else, such as `token[]`, is left out.
    """
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
    """Returns those all-reduce and reduce-scatter operations that reduce gradients; empty if there are none.

    They stay in the order of the program. An operation reduces gradients if one of its arrays has exactly the
    shape of a kernel; a reduce-scatter has the shape of its result, one part. The other reductions are for
    statistics of norms, covariances, losses and metrics, before the gradients are computed.

    Args:
      collectives: all collectives of the program, from `read_collectives`, each with `kind`, `shapes` (of its
        arrays), `bytes` and `is_overlapped`.
      kernel_shapes: shapes of all parameters with at least two axes.
    """
    reduction_kinds = ("all-reduce", "reduce-scatter")
    return [
        collective
        for collective in collectives
        if collective.kind in reduction_kinds and any(shape in kernel_shapes for shape in collective.shapes)
    ]
