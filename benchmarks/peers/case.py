"""Defines a comparison (case): random inputs, a peer that computes outputs and gradients, and what is stored.

A file in tests/golden has four groups of arrays: `in`, `out`, `cotangent` (one for each output) and `grad`,
the gradient of `sum cotangent * out` with respect to each input that has one. The peers compute in float64
and all arrays are stored in float32, so that any difference is an error of emofuse.
"""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]
STORED_SIZE, OTHER_SIZE = 1, 2
"""Size of the stored inputs, and of the inputs that the tests draw."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A comparison: `inputs(rng, size)` draws arrays, `peer(tensors)` returns output tensors by name.

    Inputs whose names are in `constants` have no gradient.
    """

    inputs: Callable[[np.random.Generator, int], Arrays]
    peer: Callable[[Tensors], Tensors]
    constants: tuple[str, ...] = ()


def normal(rng, *shape, scale=1.0):
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def prefix_mask(lengths, width):
    """Returns a mask that is True at the first `lengths[i]` of `width` positions of row i."""
    return np.arange(width) < np.asarray(lengths)[:, None]


def run_peer(case: Case, inputs: Arrays, cotangents: Arrays | None, rng) -> dict[str, Arrays]:
    """Calls a peer and returns the four groups of arrays; draws cotangents if `cotangents` is None."""
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
    """Draws inputs with the name as seed, runs the peer, and returns the four groups of arrays."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), size])
    return run_peer(case, case.inputs(rng, size), None, rng)
