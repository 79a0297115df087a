"""Low-rank multimodal fusion in PyTorch (Liu et al., arXiv 1806.00064)."""

import torch

from benchmarks.peers.case import Case, normal


def append_one(x):
    return torch.cat([x, x.new_ones(len(x), 1)], -1)


def lmf(vectors, factors, weights, bias):
    """Computes `h = sum_r w_r prod_m (W_m^r)^T [x_m; 1] + bias`, one rank at a time."""
    h = bias
    for r, weight in enumerate(weights):
        product = 1.0
        for x, factor in zip(vectors, factors, strict=True):
            product = product * (append_one(x) @ factor[r])  # b o
        h = h + weight * product
    return h


def inputs(rng, size):
    """Draws three vectors and factors of rank 3 (4 at the other size), o=4."""
    b, rank, out = 2 + size, 2 + size, 4
    widths = {"a": 3 * size, "v": 4, "t": 2 * size}
    arrays = {f"x_{k}": normal(rng, b, d) for k, d in widths.items()}
    arrays |= {f"w_{k}": normal(rng, rank, d + 1, out) for k, d in widths.items()}
    return arrays | {"weights": normal(rng, rank), "bias": normal(rng, out)}


def peer(a):
    xs, ws = ([a[f"{k}_{m}"] for m in "avt"] for k in "xw")
    return {"h": lmf(xs, ws, a["weights"], a["bias"])}


CASES = {"lmf": Case(inputs, peer)}
