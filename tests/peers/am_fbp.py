"""AM-FBP (Zhou et al., 2021, arXiv 2111.08910) in PyTorch: gates, FBP with biases, classifier.

It processes one clip and one level at a time, like the equations. Weights are [output, input], U and V as in
bilinear.py. The fused vectors have norm 8, a documented choice of emofuse.
"""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.bilinear import fbp
from benchmarks.peers.case import Case, normal

SCALE, FACTORS, CLASSES = 8.0, 4, 5
MODALITIES = ("audio", "video")


def scalar_gates(h, ok, a, level):
    """Computes scalar gates: a softmax over the present modalities of `s_m = w_m^T tanh(W_m h_m + b_m)`.

    Returns the gated vectors by modality, and the gates [2].
    """
    scores = []
    for m in MODALITIES:
        hidden = torch.tanh(F.linear(h[m], a[f"{level}.{m}.hidden.weight"], a[f"{level}.{m}.hidden.bias"]))
        scores.append(F.linear(hidden, a[f"{level}.{m}.score.weight"])[0])
    beta = torch.softmax(torch.stack(scores).masked_fill(~ok, -torch.inf), 0) if ok.any() else torch.zeros(2)
    return {m: beta[i] * h[m] for i, m in enumerate(MODALITIES)}, beta


def vector_gates(h, ok, a, level):
    """Computes vector gates: `gate_m = sigmoid(W_m [h_a; h_v] + b_m)`.

    Returns the gated vectors by modality, and for each modality its fraction of the mean gates [2].
    """
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


def fuse_clip(h, ok, a, gates):
    """Computes `z = [z_global ; mean_n z_n]`; the mean is over parts that have all modalities of the clip.

    Returns z and the weights of the modalities in the global trunk.
    """
    vectors = [{m: h[m][n] for m in MODALITIES} for n in range(len(ok))]
    global_vector, weights = trunk(vectors[0], ok[0], a, "global", gates)
    counted_parts = [n for n in range(1, len(ok)) if ok[0].any() and bool((ok[n] | ~ok[0]).all())]
    part_vectors = [trunk(vectors[n], ok[n], a, "part", gates)[0] for n in counted_parts]
    return torch.cat(
        [
            global_vector,
            torch.stack(part_vectors).mean(0) if part_vectors else torch.zeros_like(global_vector),
        ]
    ), weights


def fuse(a, gates):
    z, weights = [], []
    for i, ok in enumerate(a["ok"]):
        row, beta = fuse_clip({m: a[m][i] for m in MODALITIES}, ok, a, gates)
        z.append(row)
        weights.append(beta)
    z = torch.stack(z)
    logits = F.linear(z, a["head.weight"], a["head.bias"])
    return {"embedding": z, "weights": torch.stack(weights), "logits": logits}


def make_trunk_params(rng, level, widths, gate, columns, kind):
    params = {
        f"{level}.{k}": normal(rng, widths[m], columns, scale=0.5)
        for k, m in (("u", "audio"), ("v", "video"))
    }
    params |= {f"{level}.{k}": 1 + normal(rng, columns, scale=0.2) for k in ("bias_u", "bias_v")}
    for m in MODALITIES:
        prefix, d = f"{level}.{m}", widths[m]
        if kind == "scalar":
            params |= {
                f"{prefix}.hidden.weight": normal(rng, gate, d),
                f"{prefix}.hidden.bias": normal(rng, gate, scale=0.2),
            }
            params[f"{prefix}.score.weight"] = normal(rng, 1, gate)
        else:
            params |= {
                f"{prefix}.gate.weight": normal(rng, d, sum(widths.values())),
                f"{prefix}.gate.bias": normal(rng, d),
            }
    return params


def make_params(rng, widths, gate, out, kind):
    params = make_trunk_params(rng, "global", widths, gate, out * FACTORS, kind)
    params |= make_trunk_params(rng, "part", widths, gate, out * FACTORS, kind)
    return params | {
        "head.weight": normal(rng, CLASSES, 2 * out, scale=0.5),
        "head.bias": normal(rng, CLASSES),
    }


def make_inputs_function(kind):
    def inputs(rng, size):
        """Draws vectors of the clip and of its parts; some parts lack audio or video, one clip lacks video.

        The vectors of missing modalities are zero.
        """
        n, widths = 1 + 3, {"audio": 3 * size, "video": 4 * size}
        ok = np.ones((4, n, 2), bool)
        ok[1, 2, 0] = ok[2, 1, 1] = ok[2, 3, 0] = False
        ok[3, :, 1] = ok[3, 2, 0] = False
        vectors = {m: normal(rng, 4, n, d) * ok[:, :, i, None] for i, (m, d) in enumerate(widths.items())}
        return vectors | {"ok": ok} | make_params(rng, widths, 2 * size, 3 * size, kind)

    return inputs


GATES = {"scalar": scalar_gates, "vector": vector_gates}
CASES = {
    f"am_fbp_{kind}": Case(make_inputs_function(kind), lambda a, g=gate: fuse(a, g))
    for kind, gate in GATES.items()
}
