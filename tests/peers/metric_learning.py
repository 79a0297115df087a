"""Metric losses in PyTorch: batch-hard triplets with class margins, M2FNet's adaptive margin, VAANet's loss.

They process one triplet at a time; each returns a weighted sum and the sum of the weights.
"""

import itertools

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal
from tests.peers.attention import name_outputs


def distances(embedding):
    """Returns Euclidean distances [n n] between the normalised rows."""
    unit = F.normalize(embedding, dim=-1)
    return torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")


def list_anchors(label, weight):
    """Yields each row with a weight, with the indices of its positives and negatives, if it has both."""
    rows = [i for i in range(len(label)) if weight[i] > 0]
    for a in rows:
        positives = [i for i in rows if i != a and label[i] == label[a]]
        negatives = [i for i in rows if label[i] != label[a]]
        if positives and negatives:
            yield a, positives, negatives


def sum_terms(terms):
    """Returns the sum of the weighted terms and the sum of the weights."""
    terms = list(terms)
    return sum(w * term for w, term in terms), sum(w for w, _ in terms)


def batch_hard_triplet(embedding, label, weight, margins):
    """Computes `[D(a,p) - D(a,n) + M_{y_a, y_n}]_+` of each anchor's hardest triplet (arXiv 1703.07737)."""
    d = distances(embedding)

    def hardest(a, positives, negatives):
        pairs = itertools.product(positives, negatives)
        return max(d[a, p] - d[a, n] + margins[label[a], label[n]] for p, n in pairs)

    return sum_terms((weight[a], F.relu(hardest(a, p, n))) for a, p, n in list_anchors(label, weight))


def adaptive_margin_triplet(embedding, label, weight, eps=1e-6):
    """Computes `[D_ap - (D_an + D_pn) / 2 + m_sim + m_dis]_+` of farthest positive and nearest negative."""
    d = distances(embedding)

    def term(a, positives, negatives):
        p, n = max(positives, key=lambda i: d[a, i]), min(negatives, key=lambda i: d[a, i])
        similar = 1 + 2 / (torch.exp(4 * d[a, p]) + eps)
        dissimilar = 1 + 2 / (torch.exp(4 - 4 * d[a, n]) + eps)
        return F.relu(d[a, p] - (d[a, n] + d[p, n]) / 2 + similar + dissimilar)

    return sum_terms((weight[a], term(a, p, n)) for a, p, n in list_anchors(label, weight))


def polarity_cross_entropy(logits, label, weight, polarity, penalty=0.5):
    """Computes `CE (1 + penalty [polarity of the prediction is not that of the label])`."""
    entropy = F.cross_entropy(logits, label, reduction="none")
    wrong = polarity[logits.argmax(-1)] != polarity[label]
    return (weight * entropy * (1 + penalty * wrong)).sum(), weight.sum()


def make_labels(rng, size):
    """Draws labels of three classes, one with a single row; one row has weight 0, another one 1/2."""
    b = 7 * size
    label = (np.arange(b) % 2).astype(np.int32)
    label[-1] = 2
    weight = np.ones(b, np.float32)
    weight[1], weight[2] = 0, 0.5
    return {"label": label, "weight": weight}


def make_embeddings(rng, size):
    return {"embedding": normal(rng, 7 * size, 4 * size)} | make_labels(rng, size)


def make_embeddings_and_margins(rng, size):
    margins = rng.uniform(0.1, 1.0, (3, 3)).astype(np.float32)
    return make_embeddings(rng, size) | {"margins": (margins + margins.T) / 2}


def make_logits(rng, size):
    return make_labels(rng, size) | {"logits": normal(rng, 7 * size, 3), "polarity": np.array([1, 1, -1])}


def make_case(inputs, function):
    def peer(a):
        return name_outputs(function, "sum", "weight")(a | {"label": a["label"].long()})

    return Case(inputs, peer, constants=("weight",))


CASES = {
    "batch_hard_triplet": make_case(make_embeddings_and_margins, batch_hard_triplet),
    "adaptive_margin_triplet": make_case(make_embeddings, adaptive_margin_triplet),
    "polarity_cross_entropy": make_case(make_logits, polarity_cross_entropy),
}
