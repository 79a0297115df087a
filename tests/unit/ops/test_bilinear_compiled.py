"""What XLA writes to memory for bilinear pooling: two projections, no product of the size [b, o k] more."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.parallel.xla_options import CPU_OPTIONS, supported_options

B, M, N, O, K = 8000, 40, 56, 128, 5
SHAPES = ((B, M), (B, N), (M, O * K), (N, O * K))


def forward(x, y, u, v):
    return factorized_bilinear_pooling(x, y, u, v, factors=K)


def backward(function):
    return jax.grad(lambda *a: (function(*a) ** 3).sum(), argnums=(0, 1, 2, 3))


def find_written_arrays(compiled) -> list[str]:
    """Names of the instructions of the entry computation that write an array of b * o * k numbers."""
    text = compiled.as_text()
    body = text[text.index("\nENTRY") :]
    names = []
    for line in body[: body.index("\n}")].splitlines()[2:]:
        name, kind, shapes = parse_instruction(line)
        if kind not in ("bitcast", "get-tuple-element", "tuple", "parameter"):
            names += [name for shape in shapes if math.prod(shape) == B * O * K]
    return names


def parse_instruction(line: str) -> tuple[str, str, list[list[int]]]:
    """Name, kind and result shapes of an instruction."""
    name, rest = line.strip().removeprefix("ROOT ").lstrip("%").split(" = ", 1)
    result, kind = re.match(r"(\(.*?\)|\S+) ([\w\-]+)\(", rest).groups()
    shapes = [[int(n) for n in dimensions.split(",")] for dimensions in re.findall(r"\w\[([\d,]+)\]", result)]
    return name, kind, shapes


@pytest.mark.parametrize("options", [None, supported_options(*CPU_OPTIONS.items())])
@pytest.mark.parametrize(("function", "least", "most"), [(forward, 0, 2), (backward(forward), 2, 4)])
def test_a_cpu_writes_no_product_beside_the_projections(function, least, most, options):
    """YNNPACK writes not even these; backward, their cotangents are operands of products, and written."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES]
    instructions = find_written_arrays(jax.jit(function, compiler_options=options).lower(*shapes).compile())
    assert least <= len(instructions) <= most, instructions
