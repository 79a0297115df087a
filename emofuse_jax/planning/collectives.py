"""What the devices tell each other, read from a compiled program's text."""

import dataclasses
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_LINE = re.compile(rf"= (?P<result>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")
_PRED = re.compile(r"pred\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation; several arrays go in it where the compiler combined them."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    overlapped: bool
    """It is begun and awaited in two places, with other work between."""


def read_collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, `compiled.as_text()`, in its order.

    Loops are counted once. Of an operation in two parts the result stands beside its operand: the arrays
    are those of the second half.
    """
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if not match:
            continue
        arrays = _arrays(match["result"])
        if match["start"] and len(arrays) > 1:
            arrays = arrays[len(arrays) // 2 :]
        shapes, sizes = tuple(a[0] for a in arrays), [a[1] for a in arrays]
        found.append(Collective(match["kind"], shapes, sum(sizes), bool(match["start"])))
    return found


def _arrays(result: str) -> list[tuple[tuple[int, ...], int]]:
    """Shape and bytes of each array in a result's type."""
    found = []
    for _, bits, shape in _ARRAY.findall(result):
        dims = _dims(shape)
        found.append((dims, math.prod(dims) * int(bits) // 8))
    found += [(_dims(shape), math.prod(_dims(shape))) for shape in _PRED.findall(result)]
    return found


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def gradients(found: list[Collective], kernels: set[tuple[int, ...]]) -> list[Collective]:
    """Those that reduce gradients: an array in them has the shape of a kernel.

    What is left reduces statistics of norms and covariances, losses and metrics, before gradients are there.
    """
    kinds = ("all-reduce", "reduce-scatter")
    return [c for c in found if c.kind in kinds and any(shape in kernels for shape in c.shapes)]
