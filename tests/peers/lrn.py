"""Local response normalisation by torch itself; torch divides alpha by the window, ours does not."""

from torch.nn import functional as F

from benchmarks.peers.case import Case, normal


def lrn(x, size=5, kappa=2.0, alpha=1e-4, beta=0.75):
    """Channels last, as ours."""
    y = F.local_response_norm(x.movedim(-1, 1), size, alpha=alpha * size, beta=beta, k=kappa)
    return y.movedim(1, -1)


def inputs(rng, size):
    return {"x": normal(rng, 2, 2 * size, 3, 7 * size, scale=30.0)}


CASES = {
    "lrn": Case(inputs, lambda a: {"y": lrn(a["x"])}),
    "lrn_wide": Case(inputs, lambda a: {"y": lrn(a["x"], size=7, kappa=1.0, alpha=0.01, beta=0.5)}),
}
