"""Attention across two sequences in PyTorch: cross-attention (Mocanu et al., 2023), joint cross-attention."""

import torch

from benchmarks.peers.case import Case, normal, prefix_mask
from tests.peers.attention import name_outputs


def cross_attention(audio, video, w):
    """Computes cross-attention of one clip from `C = X_a W X_v^T`.

    Returns the attention over audio [v a] and over video [a v], and both sequences weighted by them.
    """
    c = audio @ w @ video.T  # a v
    over_audio, over_video = c.T.softmax(-1), c.softmax(-1)  # v a, a v
    return over_audio, over_video, over_audio @ audio, over_video @ video


def scatter(rows, valid, others=None):
    """Returns a matrix over all positions from one over the valid positions; masked positions are zero."""
    matrix = rows.new_zeros(len(valid), rows.shape[1] if others is None else len(others))
    columns = torch.arange(matrix.shape[1]) if others is None else others.nonzero()[:, 0]
    return matrix.index_put((valid.nonzero()[:, 0][:, None], columns[None]), rows)


def masked_cross_attention(audio, video, w, audio_mask, video_mask):
    """Computes cross-attention of each clip among its valid positions; masked positions are zero vectors.

    Returns both sequences after residual and tanh, both attention matrices, and both weighted sequences.
    """
    outputs = []
    for x_a, x_v, m_a, m_v in zip(audio, video, audio_mask, video_mask, strict=True):
        w_a, w_v, picked_a, picked_v = cross_attention(x_a[m_a], x_v[m_v], w)
        picked_a, picked_v = scatter(picked_a, m_v), scatter(picked_v, m_a)
        new_a, new_v = torch.tanh(x_a * m_a[:, None] + picked_a), torch.tanh(x_v * m_v[:, None] + picked_v)
        outputs.append((new_a, new_v, scatter(w_a, m_v, m_a), scatter(w_v, m_a, m_v), picked_a, picked_v))
    return tuple(torch.stack(arrays) for arrays in zip(*outputs, strict=True))


def make_sequences(rng, size):
    """Draws two sequences of n positions with different masks; one clip has no video."""
    n, d_a, d_v = 3 + size, 2 + size, 4 * size
    audio_mask, video_mask = prefix_mask([n, n - 1, n], n), prefix_mask([n, n, 0], n)
    video_mask[1, 1] = False
    audio, video = normal(rng, 3, n, d_a), normal(rng, 3, n, d_v)
    w = normal(rng, d_a, d_v, scale=0.5)
    return {"audio": audio, "video": video, "w": w, "audio_mask": audio_mask, "video_mask": video_mask}


def joint_correlation(features, joint, kernel):
    """Computes `tanh(M^T W J / sqrt(d))` with d the width of J, in the column layout of arXiv 2203.14779."""
    columns, both = features.mT, joint.mT  # b d l, b e n
    return torch.tanh(columns.mT @ kernel @ both / both.shape[1] ** 0.5)  # b l n


def reweight(correlation, features, mask):
    """Returns the mean over valid positions of each vector times its correlation, one clip at a time."""
    rows = zip(correlation, features, mask, strict=True)
    return torch.stack([(c[m][:, :, None] * x[m][:, None]).mean(0) for c, x, m in rows])  # b n d


def make_joint_inputs(rng, size):
    """Draws features of one modality and joint features of both; the second clip is one step shorter."""
    b, l, d, e = 2, 3 + size, 2 * size, 5 * size
    mask = prefix_mask([l, l - 1], l)
    features, both = normal(rng, b, l, d), normal(rng, b, l, e)
    return {"own": features, "joint": both, "kernel": normal(rng, d, e), "mask": mask}


def joint_peer(a):
    c = joint_correlation(a["own"], a["joint"], a["kernel"])
    return {"c": c, "x": reweight(c, a["own"], a["mask"])}


FIELDS = ("audio", "video", "audio_weights", "video_weights", "audio_picked", "video_picked")
CASES = {
    "cross_attention": Case(make_sequences, name_outputs(masked_cross_attention, *FIELDS)),
    "joint_attention": Case(make_joint_inputs, joint_peer),
}
