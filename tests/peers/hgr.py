"""Soft-HGR in PyTorch (Wang et al., arXiv 1811.08979)."""

import numpy as np
import torch

from benchmarks.peers.case import Case, normal


def soft_hgr(f, g, weight=None):
    """Computes `1/(m-1) sum f^T g - 1/2 tr(C_f C_g)` of the rows with weight 1; torch.cov centres them."""
    if weight is not None:
        f, g = f[weight > 0], g[weight > 0]
    both = torch.cov(torch.cat([f, g], -1).T)  # 2d 2d
    d = f.shape[-1]
    c_f, c_g, c_fg = both[:d, :d], both[d:, d:], both[:d, d:]
    return torch.trace(c_fg) - torch.trace(c_f @ c_g) / 2


def moving_covariance(c, previous, decay, count):
    """Computes Adam's bias-corrected average of covariance `c` and earlier ones; its gradient is that of `c`.

    Returns it and the new average without bias correction.
    """
    average = decay * previous + (1 - decay) * c
    return c + (average / (1 - decay**count) - c).detach(), average.detach()


def moving_soft_hgr(f, g, s_f, s_g, decay=0.9, count=3):
    """Computes soft-HGR with moving covariances; `s_f` and `s_g` are the averages of two earlier batches.

    Returns soft-HGR and the two new averages.
    """
    c_f, new_f = moving_covariance(torch.cov(f.T), s_f, decay, count)
    c_g, new_g = moving_covariance(torch.cov(g.T), s_g, decay, count)
    cross = ((f - f.mean(0)) * (g - g.mean(0))).sum() / (len(f) - 1)
    return cross - (c_f * c_g.T).sum() / 2, new_f, new_g


def make_features(rng, size):
    """Draws two correlated features with means that are not zero."""
    b, d = 12 * size, 3 * size
    f = normal(rng, b, d)
    return {"f": f + 1, "g": 0.6 * f + normal(rng, b, d, scale=0.8) - 2}


def make_padded_features(rng, size):
    inputs = make_features(rng, size)
    return inputs | {"weight": (np.arange(12 * size) % 4 > 0).astype(np.float32)}


def make_features_with_averages(rng, size):
    inputs = make_features(rng, size)
    for name in ("s_f", "s_g"):
        past = normal(rng, 20, 3 * size)
        inputs[name] = (0.19 * np.cov(past.T)).astype(np.float32)  # 1 - 0.9^2
    return inputs


def moving_peer(a):
    return dict(zip(("h", "s_f", "s_g"), moving_soft_hgr(**a), strict=True))


CASES = {
    "soft_hgr_moving": Case(make_features_with_averages, moving_peer, constants=("s_f", "s_g")),
    "soft_hgr": Case(make_features, lambda a: {"h": soft_hgr(**a)}),
    "soft_hgr_padded": Case(make_padded_features, lambda a: {"h": soft_hgr(**a)}, constants=("weight",)),
}
