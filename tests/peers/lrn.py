"""Local response normalisation with torch, which divides alpha by the window size; emofuse does not."""

from torch.nn import functional as F

from benchmarks.peers.case import Case, normal


def lrn(x, size=5, kappa=2.0, alpha=1e-4, beta=0.75):
    """Computes LRN over the last axis, with alpha as in emofuse."""
    y = F.local_response_norm(x.movedim(-1, 1), size, alpha=alpha * size, beta=beta, k=kappa)
    return y.movedim(1, -1)


def inputs(rng, size):
    return {"x": normal(rng, 2, 2 * size, 3, 7 * size, scale=30.0)}


CASES = {
    "lrn": Case(inputs, lambda a: {"y": lrn(a["x"])}),
    "lrn_wide": Case(inputs, lambda a: {"y": lrn(a["x"], size=7, kappa=1.0, alpha=0.01, beta=0.5)}),
}
