"""Fusion by cross-attention (Mocanu et al., 2023), and self-attention between tokens, in PyTorch."""

import torch
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal
from tests.peers.attention import make_tokens, multi_head
from tests.peers.cross_attention import make_sequences, masked_cross_attention

CLASSES, COMMON, EPSILON = 4, 5, 1e-6


def fuse(a):
    """Projects both sequences to one width, then applies layer norm, cross-attention and a classifier."""
    x = {m: F.linear(a[m], a[f"{m}.weight"], a[f"{m}.bias"]) for m in ("audio", "video")}
    x = {m: F.layer_norm(x[m], (COMMON,), a[f"{m}_norm.weight"], a[f"{m}_norm.bias"], EPSILON) for m in x}
    audio, video, *_ = masked_cross_attention(
        x["audio"], x["video"], a["w"], a["audio_mask"], a["video_mask"]
    )
    flat = torch.cat([audio, video], -1).flatten(1)
    return {"embedding": flat, "logits": F.linear(flat, a["head.weight"], a["head.bias"])}


def inputs(rng, size):
    arrays = make_sequences(rng, size)
    n = arrays["audio"].shape[1]
    for m in ("audio", "video"):
        arrays |= {f"{m}.weight": normal(rng, COMMON, arrays[m].shape[2]), f"{m}.bias": normal(rng, COMMON)}
        arrays |= {f"{m}_norm.{k}": normal(rng, COMMON) for k in ("weight", "bias")}
    arrays["w"] = normal(rng, COMMON, COMMON, scale=0.3)
    return arrays | {"head.weight": normal(rng, CLASSES, 2 * n * COMMON), "head.bias": normal(rng, CLASSES)}


def token_attention(a):
    """Computes residual self-attention; keys have no bias, because it would not change the softmax.

    The returned weights are the mean over the heads.
    """
    d = a["x"].shape[-1]
    bias_mask = torch.ones(3 * d, dtype=torch.float64)
    bias_mask[d : 2 * d] = 0
    y, weights = multi_head(**(a | {"qkv_bias": a["qkv_bias"] * bias_mask}), heads=2)
    return {"y": a["x"] + y, "weights": weights.mean(1)}


CASES = {"cross_attention_fusion": Case(inputs, fuse), "token_attention": Case(make_tokens, token_attention)}
