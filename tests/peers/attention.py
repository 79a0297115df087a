"""Poolings of a sequence into one vector in PyTorch: Deep Fusion (arXiv 1901.04889), frame attention."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal, prefix_mask


def score(values, w, b, u):
    """Computes the scores `e_i = u^T tanh(W a_i + b)`; `w` is [input, output]."""
    return torch.tanh(F.linear(values, w.T, b)) @ u


def attention_pool(values, scores, mask, temperature=0.3):
    alpha = torch.softmax((temperature * scores).masked_fill(~mask, -torch.inf), -1)  # b l
    return torch.einsum("bl,bld->bd", alpha, values), alpha


def weighted_mean(values, weight, mask):
    """Returns the weighted mean of the valid vectors, and the normalised weights."""
    weight = weight.masked_fill(~mask, 0)
    weight = weight / weight.sum(-1, keepdim=True)
    return (weight[..., None] * values).sum(1), weight


def self_frames(frames, q0, mask):
    return weighted_mean(frames, torch.sigmoid(frames @ q0), mask)


def relation_frames(frames, q0, q1, mask):
    alpha = torch.sigmoid(frames @ q0)
    overall, _ = weighted_mean(frames, alpha, mask)
    both = torch.cat([frames, overall[:, None].expand_as(frames)], -1)  # b l 2d
    return weighted_mean(both, alpha * torch.sigmoid(both @ q1), mask)


def transformer_frames(frames, queries, keys, mask):
    """Computes scaled dot-product attention with torch and returns the mean over the valid rows."""
    rows = F.scaled_dot_product_attention(queries, keys, frames, attn_mask=mask[:, None])  # b l d
    return (rows * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def multi_head(x, mask, qkv, qkv_bias, out, out_bias, heads):
    """Computes torch's multi-head self-attention; weights are [output, input], the mask is True if valid.

    Returns the output [b l d] and the attention weights of each head.
    """
    layer = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True).to(x.dtype)
    params = {
        "in_proj_weight": qkv,
        "in_proj_bias": qkv_bias,
        "out_proj.weight": out,
        "out_proj.bias": out_bias,
    }
    padding = None if mask is None else ~mask
    options = {"key_padding_mask": padding, "average_attn_weights": False}
    return torch.func.functional_call(layer, params, (x, x, x), options)


def make_frames(rng, size, **shapes):
    """Draws a sequence with padding, an invalid frame in the middle, and a row with a single valid frame.

    `shapes` are more arrays by name, each axis as a letter of `sizes`.
    """
    b, l, d = 3, 4 + size, 3 * size
    mask = prefix_mask([l, l - 1, 1], l)
    mask[1, 1] = False
    sizes = {"b": b, "l": l, "d": d, "e": 2 * d, "r": 2}
    more_arrays = {name: normal(rng, *(sizes[axis] for axis in axes)) for name, axes in shapes.items()}
    return {"frames": normal(rng, b, l, d), "mask": mask} | more_arrays


def name_outputs(function, *names):
    def peer(a):
        return dict(zip(names, function(**a), strict=True))

    return peer


def additive(frames, mask, w, b, u):
    return attention_pool(frames, score(frames, w, b, u), mask)


def make_tokens(rng, size):
    """Draws tokens for two heads, and the weights of the projections."""
    b, l, d = 2, 3 + size, 4 * size
    shapes = {"qkv": (3 * d, d), "qkv_bias": (3 * d,), "out": (d, d), "out_bias": (d,)}
    params = {name: normal(rng, *shape, scale=0.5) for name, shape in shapes.items()}
    return {"x": normal(rng, b, l, d), "mask": prefix_mask([l, l - 2], l)} | params


CASES = {
    "multi_head": Case(make_tokens, lambda a: name_outputs(multi_head, "y", "weights")(a | {"heads": 2})),
    "attention_pool": Case(
        lambda rng, size: make_frames(rng, size, scores="bl"),
        lambda a: name_outputs(attention_pool, "c", "alpha")({"values": a.pop("frames")} | a),
    ),
    "additive_attention": Case(
        lambda rng, size: make_frames(rng, size, w="dr", b="r", u="r"), name_outputs(additive, "c", "alpha")
    ),
    "self_frames": Case(
        lambda rng, size: make_frames(rng, size, q0="d"), name_outputs(self_frames, "f", "weights")
    ),
    "relation_frames": Case(
        lambda rng, size: make_frames(rng, size, q0="d", q1="e"),
        name_outputs(relation_frames, "f", "weights"),
    ),
    "transformer_frames": Case(
        lambda rng, size: make_frames(rng, size, queries="blr", keys="blr"),
        lambda a: {"f": transformer_frames(**a)},
    ),
}
