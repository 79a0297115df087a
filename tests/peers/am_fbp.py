"""AM-FBP (systems.md, section 2) in PyTorch: gates, biased FBP of the clip and of its parts, and the head.

One clip and one level at a time, as the equations are written. Weights are [output, input], U and V as in
bilinear.py. The fused vectors have norm 8, a documented choice of ours.
"""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.bilinear import fbp
from benchmarks.peers.case import Case, normal

SCALE, FACTORS, CLASSES = 8.0, 4, 5
MODALITIES = ("audio", "video")


def scalar_gates(h, ok, a, level):
    """`s_m = w_m^T tanh(W_m h_m + b_m)`, a softmax over the modalities that are there."""
    scores = []
    for m in MODALITIES:
        hidden = torch.tanh(F.linear(h[m], a[f"{level}.{m}.hidden.weight"], a[f"{level}.{m}.hidden.bias"]))
        scores.append(F.linear(hidden, a[f"{level}.{m}.score.weight"])[0])
    beta = torch.softmax(torch.stack(scores).masked_fill(~ok, -torch.inf), 0) if ok.any() else torch.zeros(2)
    return {m: beta[i] * h[m] for i, m in enumerate(MODALITIES)}, beta


def vector_gates(h, ok, a, level):
    """`gate_m = sigmoid(W_m [h_a; h_v] + b_m)`; the weight of a modality is its share of the mean gates."""
    both = torch.cat([h["audio"], h["video"]])
    gates = {
        m: torch.sigmoid(F.linear(both, *(a[f"{level}.{m}.gate.{k}"] for k in ("weight", "bias")))) for m in h
    }
    means = torch.stack([gates[m].mean() for m in MODALITIES]) * ok
    return {m: gates[m] * h[m] for m in h}, means / means.sum() if ok.any() else means


def trunk(h, ok, a, level, gates):
    h, weights = gates(h, ok, a, level)
    u, v, bias_u, bias_v = (a[f"{level}.{name}"] for name in ("u", "v", "bias_u", "bias_v"))
    z = fbp(h["audio"][None], h["video"][None], u, v, factors=FACTORS, bias_u=bias_u, bias_v=bias_v)
    return SCALE * z[0], weights


def clip(h, ok, a, gates):
    """`z = [z_global ; mean_n z_n]`, over the parts that hold whatever the clip has."""
    at = [{m: h[m][n] for m in MODALITIES} for n in range(len(ok))]
    whole, weights = trunk(at[0], ok[0], a, "global", gates)
    counted = [n for n in range(1, len(ok)) if ok[0].any() and bool((ok[n] | ~ok[0]).all())]
    parts = [trunk(at[n], ok[n], a, "part", gates)[0] for n in counted]
    return torch.cat([whole, torch.stack(parts).mean(0) if parts else torch.zeros_like(whole)]), weights


def fuse(a, gates):
    z, weights = [], []
    for i, ok in enumerate(a["ok"]):
        row, beta = clip({m: a[m][i] for m in MODALITIES}, ok, a, gates)
        z.append(row)
        weights.append(beta)
    z = torch.stack(z)
    logits = F.linear(z, a["head.weight"], a["head.bias"])
    return {"embedding": z, "weights": torch.stack(weights), "logits": logits}


def trunk_numbers(rng, level, widths, gate, columns, kind):
    found = {
        f"{level}.{k}": normal(rng, widths[m], columns, scale=0.5)
        for k, m in (("u", "audio"), ("v", "video"))
    }
    found |= {f"{level}.{k}": 1 + normal(rng, columns, scale=0.2) for k in ("bias_u", "bias_v")}
    for m in MODALITIES:
        at, d = f"{level}.{m}", widths[m]
        if kind == "scalar":
            found |= {
                f"{at}.hidden.weight": normal(rng, gate, d),
                f"{at}.hidden.bias": normal(rng, gate, scale=0.2),
            }
            found[f"{at}.score.weight"] = normal(rng, 1, gate)
        else:
            found |= {
                f"{at}.gate.weight": normal(rng, d, sum(widths.values())),
                f"{at}.gate.bias": normal(rng, d),
            }
    return found


def weights(rng, widths, gate, out, kind):
    found = trunk_numbers(rng, "global", widths, gate, out * FACTORS, kind)
    found |= trunk_numbers(rng, "part", widths, gate, out * FACTORS, kind)
    return found | {
        "head.weight": normal(rng, CLASSES, 2 * out, scale=0.5),
        "head.bias": normal(rng, CLASSES),
    }


def inputs_of(kind):
    def inputs(rng, size):
        """The whole and its parts; a part without sound, a clip without video; absent vectors are zero."""
        n, widths = 1 + 3, {"audio": 3 * size, "video": 4 * size}
        ok = np.ones((4, n, 2), bool)
        ok[1, 2, 0] = ok[2, 1, 1] = ok[2, 3, 0] = False
        ok[3, :, 1] = ok[3, 2, 0] = False
        vectors = {m: normal(rng, 4, n, d) * ok[:, :, i, None] for i, (m, d) in enumerate(widths.items())}
        return vectors | {"ok": ok} | weights(rng, widths, 2 * size, 3 * size, kind)

    return inputs


GATES = {"scalar": scalar_gates, "vector": vector_gates}
CASES = {
    f"am_fbp_{kind}": Case(inputs_of(kind), lambda a, g=gate: fuse(a, g)) for kind, gate in GATES.items()
}
