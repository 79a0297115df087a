"""Pooling a sequence into one vector by attention; leading axes of values, scores and mask broadcast."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_mean, masked_softmax, pool, sigmoid_weights
from emofuse_jax.ops.normalize import promote


def attention_pool(
    values: Float[Array, "*#batch l d"],
    scores: Float[Array, "*#batch l"],
    mask: Bool[Array, "*#batch l"],
    *,
    temperature: float = 0.3,
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch l"]]:
    """`alpha = softmax(lambda e)`, `c = sum_l alpha_l v_l` over the valid positions.

    Reference: Zhang et al., arXiv 1806.01506. `temperature` is the paper's lambda, a factor on the
    scores: 0 gives the mean.

    Args:
      values: vectors to pool.
      scores: one score a position.
      mask: False where there is padding or no observation.
      temperature: lambda.

    Returns:
      The pooled vectors, zero where nothing is valid, and the weights in float32.
    """
    weights = masked_softmax(*jnp.broadcast_arrays(temperature * promote(scores), mask))
    return pool(values, weights), weights


def statistics_pool(
    values: Float[Array, "*#batch l d"],
    scores: Float[Array, "*#batch l"],
    mask: Bool[Array, "*#batch l"],
    *,
    temperature: float = 1.0,
    eps: float = 1e-5,
) -> tuple[Float[Array, "*batch e"], Float[Array, "*batch l"]]:
    """`[mu; sqrt(sum_l alpha_l (v_l - mu)^2 + eps)]`, `mu` and `alpha` of `attention_pool`. e = 2 d.

    Attentive statistics pooling, Okabe et al., arXiv 1803.10963. Zero where nothing is valid.
    """
    wide = promote(values)
    mean, weights = attention_pool(wide, scores, mask, temperature=temperature)
    variance = pool((wide - mean[..., None, :]) ** 2, weights)
    some = jnp.any(weights > 0, axis=-1, keepdims=True)
    deviation = jnp.where(some, jnp.sqrt(variance + eps), 0.0)
    return jnp.concatenate([mean, deviation], axis=-1).astype(values.dtype), weights


def self_frame_attention(
    frames: Float[Array, "*#batch l d"], q0: Float[Array, " d"], mask: Bool[Array, "*#batch l"]
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch l"]]:
    """`alpha_i = sigmoid(f_i^T q0)`, `f' = sum alpha_i f_i / sum alpha_i`.

    Reference: frame attention networks, Meng et al., arXiv 1907.00193. Sigmoids, not a softmax.
    """
    scores = promote(frames) @ q0  # ... l
    scores, mask = jnp.broadcast_arrays(scores, mask)
    weights = sigmoid_weights(scores, mask=mask)
    return pool(frames, weights), weights


def relation_frame_attention(
    frames: Float[Array, "*#batch l d"],
    q0: Float[Array, " d"],
    q1: Float[Array, " e"],
    mask: Bool[Array, "*#batch l"],
) -> tuple[Float[Array, "*batch e"], Float[Array, "*batch l"]]:
    """`beta_i = sigmoid([f_i; f']^T q1)`, `f_v = sum alpha_i beta_i [f_i; f'] / sum alpha_i beta_i`.

    `alpha` and `f'` are those of `self_frame_attention`. Reference: arXiv 1907.00193. e = 2 d.
    """
    d = frames.shape[-1]
    first = promote(frames) @ q0  # ... l
    first, mask = jnp.broadcast_arrays(first, mask)
    overall = promote(pool(frames, sigmoid_weights(first, mask=mask)))  # ... d
    second = promote(frames) @ q1[:d] + (overall @ q1[d:])[..., None]  # ... l
    weights = sigmoid_weights(first, second, mask=mask)
    return jnp.concatenate([pool(frames, weights), overall.astype(frames.dtype)], axis=-1), weights


def transformer_frame_attention(
    frames: Float[Array, "*#batch l d"],
    queries: Float[Array, "*#batch l r"],
    keys: Float[Array, "*#batch l r"],
    mask: Bool[Array, "*#batch l"],
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch l"]]:
    """`A = softmax_j(q_i^T k_j / sqrt(r))`, `w = mean_i A_i`, `f_v = sum_j w_j f_j`.

    Similarity weights after a linear reduction to r (arXiv 2012.13912); the mean over the valid rows
    gives one weight a frame, as the two kinds above do.
    """
    similarity = promote(queries) @ jnp.swapaxes(promote(keys), -1, -2) / keys.shape[-1] ** 0.5  # ... l l
    similarity, columns = jnp.broadcast_arrays(similarity, mask[..., None, :])
    weights = masked_mean(masked_softmax(similarity, columns), columns[..., 0, :])
    return pool(frames, weights), weights
