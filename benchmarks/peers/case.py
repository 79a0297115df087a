"""One comparison: random inputs, a peer that answers them, and what is stored of the answer.

A file in tests/golden holds four groups of arrays: `in`, `out`, `cotangent` (one for each output) and `grad`,
the gradient of `sum cotangent * out` with respect to each input that has one. The peers compute in float64
and everything is stored in float32, so that a difference is ours.
"""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]
STORED_SIZE, OTHER_SIZE = 1, 2
"""Sizes: of the stored inputs, and of those drawn afresh by the tests."""


@dataclasses.dataclass(frozen=True)
class Case:
    """`inputs(rng, size)` and `peer(tensors) -> tensors`; names in `constants` get no gradient."""

    inputs: Callable[[np.random.Generator, int], Arrays]
    peer: Callable[[Tensors], Tensors]
    constants: tuple[str, ...] = ()


def normal(rng, *shape, scale=1.0):
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def prefix_mask(lengths, width):
    """True at the first positions of each row."""
    return np.arange(width) < np.asarray(lengths)[:, None]


def run_peer(case: Case, inputs: Arrays, cotangents: Arrays | None, rng) -> dict[str, Arrays]:
    """The four groups; cotangents are drawn where none are given."""
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in inputs.items()}
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    traced = [k for k, v in tensors.items() if v.is_floating_point() and k not in case.constants]
    for name in traced:
        tensors[name].requires_grad_()
    out = case.peer(dict(tensors))
    if cotangents is None:
        cotangents = {k: normal(rng, *v.shape) for k, v in out.items()}
    total = sum((torch.from_numpy(cotangents[k]) * v).sum() for k, v in out.items())
    grads = torch.autograd.grad(total, [tensors[k] for k in traced])
    return {
        "in": inputs,
        "out": {k: v.detach().float().numpy() for k, v in out.items()},
        "cotangent": cotangents,
        "grad": {k: g.float().numpy() for k, g in zip(traced, grads, strict=True)},
    }


def solve(name: str, case: Case, size: int = STORED_SIZE) -> dict[str, Arrays]:
    """Inputs drawn by the case's name, and the peer's answer."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), size])
    return run_peer(case, case.inputs(rng, size), None, rng)
