"""The papers' equations in plain NumPy loops and sums, written apart from the package."""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def fbp(x, y, u, v, k, *, bias=0.0, power_norm=False, normalize=True):
    """FBP of two vectors, one output at a time."""
    z = np.zeros(u.shape[1] // k)
    for i in range(len(z)):
        for j in range(i * k, (i + 1) * k):
            z[i] += (u[:, j] @ x + bias) * (v[:, j] @ y + bias)
    if power_norm:
        z = np.sign(z) * np.sqrt(np.abs(z))
    return z / np.linalg.norm(z) if normalize else z


def self_attention(frames, q0):
    alpha = np.array([sigmoid(f @ q0) for f in frames])
    return (alpha[:, None] * frames).sum(0) / alpha.sum()


def weighted_statistics(frames, alpha, eps):
    mean = (alpha[:, None] * frames).sum(0)
    variance = (alpha[:, None] * (frames - mean) ** 2).sum(0)
    return np.concatenate([mean, np.sqrt(variance + eps)])


def relation_attention(frames, q0, q1):
    alpha = np.array([sigmoid(f @ q0) for f in frames])
    anchor = self_attention(frames, q0)
    both = np.array([np.concatenate([f, anchor]) for f in frames])
    weight = alpha * np.array([sigmoid(row @ q1) for row in both])
    return (weight[:, None] * both).sum(0) / weight.sum()


def transformer_attention(frames, queries, keys):
    rows = [softmax(keys @ q / np.sqrt(len(q))) for q in queries]
    return np.mean([row @ frames for row in rows], axis=0)


def lrn(a, size, kappa, alpha, beta):
    """Local response normalisation of one vector of channels."""
    b = np.zeros_like(a)
    for i in range(len(a)):
        low, high = max(0, i - size // 2), min(len(a), i + size // 2 + 1)
        b[i] = a[i] / (kappa + alpha * (a[low:high] ** 2).sum()) ** beta
    return b


def soft_hgr(f, g):
    m = len(f)
    f, g = f - f.mean(0), g - g.mean(0)
    c_f, c_g = np.cov(f.T).reshape(f.shape[1], -1), np.cov(g.T).reshape(f.shape[1], -1)
    return sum(f[i] @ g[i] for i in range(m)) / (m - 1) - 0.5 * np.trace(c_f @ c_g)


def cross_entropy(logits, label, smoothing=0.0):
    c = len(logits)
    q = np.full(c, smoothing / c)
    q[label] += 1 - smoothing
    return -(q * np.log(softmax(logits))).sum()
