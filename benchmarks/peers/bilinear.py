"""Bilinear poolings in PyTorch: FBP (arXiv 1901.04889), MFB (1708.01471) and MFH (1708.03619).

`keep` is a dropout mask that is divided by the probability of keeping a value; None means evaluation.
"""

import torch
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal


def joint_products(x, y, u, v, bias_u=None, bias_v=None, keep=None):
    """Computes `dropout((U^T x + b_U) o (V^T y + b_V))`, one column for each output and factor."""
    joint = F.linear(x, u.T, bias_u) * F.linear(y, v.T, bias_v)  # b ok
    return joint if keep is None else joint * keep


def sum_pool(joint, factors):
    """Adds up each group of `factors` adjacent columns, as an average pooling times its window size."""
    return factors * F.avg_pool1d(joint[:, None], factors)[:, 0]  # b o


def signed_root(z):
    return torch.sign(z) * torch.sqrt(torch.abs(z))


def l2_normalize(z, eps=1e-6):
    return z * torch.rsqrt((z * z).sum(-1, keepdim=True) + eps)


def fbp(x, y, u, v, *, factors, bias_u=None, bias_v=None, power_norm=False, normalize=True, keep=None):
    z = sum_pool(joint_products(x, y, u, v, bias_u, bias_v, keep), factors)
    z = signed_root(z) if power_norm else z
    return l2_normalize(z) if normalize else z


def bilinear_form(x, y, u, v, factors):
    """Computes `x^T (U_i V_i^T) y` with the explicit matrix of each output i; equals FBP before the norm."""
    slices = zip(u.split(factors, 1), v.split(factors, 1), strict=True)
    matrices = torch.stack([a @ b.T for a, b in slices])  # o m n
    return F.bilinear(x, y, matrices)


def mfb(x, y, u, v, *, factors):
    return fbp(x, y, u, v, factors=factors, power_norm=True)


def mfh(x, y, us, vs, *, factors):
    """Computes a cascade: multiplies the products of each stage by those before; concatenates all outputs."""
    outputs, joint = [], 1.0
    for u, v in zip(us, vs, strict=True):
        joint = joint * joint_products(x, y, u, v)
        outputs.append(l2_normalize(signed_root(sum_pool(joint, factors))))
    return torch.cat(outputs, -1)


def random_vectors(rng, size):
    """Draws two vectors and their factors with k=4 (5 at the other size) and o=3."""
    b, m, n, ok = 3 * size, 5 * size, 4 * size, 3 * (3 + size)
    shapes = {"x": (b, m), "y": (b, n), "u": (m, ok), "v": (n, ok)}
    return {name: normal(rng, *shape) for name, shape in shapes.items()}


def random_biased_vectors(rng, size):
    inputs = random_vectors(rng, size)
    columns = inputs["u"].shape[1]
    return inputs | {name: 1 + normal(rng, columns, scale=0.3) for name in ("bias_u", "bias_v")}


def random_cascade(rng, size):
    first, second, third = (random_vectors(rng, size) for _ in range(3))
    later_factors = {f"{k}{i}": part[k] for i, part in ((2, second), (3, third)) for k in "uv"}
    return first | later_factors


def fbp_case(inputs=random_vectors, **options):
    def peer(a):
        return {"z": fbp(**a, factors=a["u"].shape[1] // 3, **options)}

    return Case(inputs, peer)


def mfh_peer(a):
    us, vs = ([a[f"{k}{i}"] for i in ("", 2, 3)] for k in "uv")
    return {"z": mfh(a["x"], a["y"], us, vs, factors=us[0].shape[1] // 3)}


CASES = {
    "fbp": fbp_case(),
    "fbp_power": fbp_case(power_norm=True),
    "fbp_biased": fbp_case(random_biased_vectors),
    "fbp_biased_power": fbp_case(random_biased_vectors, power_norm=True),
    "fbp_unnormalised": Case(
        random_vectors, lambda a: {"z": bilinear_form(**a, factors=a["u"].shape[1] // 3)}
    ),
    "mfb": Case(random_vectors, lambda a: {"z": mfb(**a, factors=a["u"].shape[1] // 3)}),
    "mfh": Case(random_cascade, mfh_peer),
}
