"""Multimodal bottleneck transformer (arXiv 2107.00135) with torch's encoder layers, one clip at a time.

Only valid positions are passed, without masks; a missing modality is left out. GELU uses the tanh
approximation and eps of the norms is 1e-6, as in the paper's code.
"""

import math

import numpy as np
import torch
from torch import nn

from benchmarks.peers.case import Case, normal, prefix_mask
from benchmarks.peers.modules import call, random_weights

WIDTH, HEADS, HIDDEN, LAYERS, FUSION_LAYER, CLASSES, SHARED_TOKENS, FREQUENCIES = 4, 2, 6, 2, 1, 3, 2, 6
EPS = 1e-6
MODALITIES = ("audio", "video")


def encoder_layer():
    gelu = nn.GELU(approximate="tanh")
    options = {
        "dropout": 0.0,
        "activation": gelu,
        "layer_norm_eps": EPS,
        "batch_first": True,
        "norm_first": True,
    }
    return nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **options).train()  # no fast path


def make_stream(d):
    parts = {
        "enter": nn.LayerNorm(d, EPS),
        "project": nn.Linear(d, WIDTH),
        "place": nn.Linear(2 * FREQUENCIES, WIDTH),
        "norm": nn.LayerNorm(WIDTH, EPS),
        "head": nn.Linear(WIDTH, CLASSES),
    }
    return nn.ModuleDict(parts | {f"layer{i + 1}": encoder_layer() for i in range(LAYERS)})


class Bottleneck:
    """The network for one clip, with the parameters in `a`."""

    def __init__(self, a):
        self.a = a
        self.streams = {m: make_stream(a[m].shape[-1]) for m in MODALITIES}

    def run(self, m, name, x):
        return call(self.streams[m][name], self.a, x, prefix=f"{m}.{name}.")

    def tokens(self, m, values, order, length):
        tau = (order + 0.5) / length
        angles = (
            math.pi * tau[:, None] * torch.tensor([2.0**j for j in range(FREQUENCIES)], dtype=torch.float64)
        )
        time_encoding = torch.cat([angles.sin(), angles.cos()], -1)
        x = self.run(m, "project", self.run(m, "enter", values)) + self.run(m, "place", time_encoding)
        return torch.cat([self.a[f"{m}.first"][None], x])[None]

    def clip(self, x):
        """Returns the mean of the logits of all modalities; `x` has the tokens of the present modalities."""
        shared = self.a["shared"][None]
        for i in range(1, LAYERS + 1):
            if i <= FUSION_LAYER:
                x = {m: self.run(m, f"layer{i}", v) for m, v in x.items()}
                continue
            joined = {m: self.run(m, f"layer{i}", torch.cat([v, shared], 1)) for m, v in x.items()}
            x = {m: v[:, :-SHARED_TOKENS] for m, v in joined.items()}
            shared = torch.stack([v[:, -SHARED_TOKENS:] for v in joined.values()]).mean(0)
        vectors = {m: self.run(m, "norm", v[0, 0]) for m, v in x.items()}
        return torch.stack([self.run(m, "head", v) for m, v in vectors.items()]).mean(0)


def peer(a):
    net, logits = Bottleneck(a), []
    for i in range(len(a["audio"])):
        masks = {m: a[f"{m}_mask"][i] for m in MODALITIES}
        orders = {m: torch.arange(len(mask)) for m, mask in masks.items()}
        lengths = {m: a[f"{m}_length"][i] for m in MODALITIES}
        valid_inputs = {
            m: (a[m][i][mask], orders[m][mask], lengths[m]) for m, mask in masks.items() if mask.any()
        }
        logits.append(
            net.clip({m: net.tokens(m, *stream_inputs) for m, stream_inputs in valid_inputs.items()})
        )
    return {"logits": torch.stack(logits)}


def inputs(rng, size):
    """Draws audio with padding, and faces of which one is invalid; the last clip has no faces."""
    b, widths, lengths = 3, {"audio": 3 * size, "video": 2 + size}, {"audio": 3 + size, "video": 2 + size}
    arrays = {}
    for m, n in lengths.items():
        arrays[m] = normal(rng, b, n, widths[m])
        arrays |= random_weights(rng, make_stream(widths[m]), f"{m}.") | {f"{m}.first": normal(rng, WIDTH)}
    counts = np.array([4, 2, 3]) + size - 1
    arrays |= {"audio_mask": prefix_mask(counts, lengths["audio"]), "audio_length": counts}
    arrays |= {
        "video_mask": np.ones((b, lengths["video"]), bool),
        "video_length": np.full(b, lengths["video"]),
    }
    arrays["video_mask"][0, 1] = arrays["video_mask"][2] = False
    return arrays | {"shared": normal(rng, SHARED_TOKENS, WIDTH)}


CASES = {"bottleneck": Case(inputs, peer)}
