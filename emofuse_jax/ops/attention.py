"""Pooling a sequence into one vector by attention; leading axes of values, scores and mask broadcast."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_mean, masked_softmax, sigmoid_weights, weighted_sum
from emofuse_jax.ops.normalize import at_least_float32


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
    weights = masked_softmax(*jnp.broadcast_arrays(temperature * at_least_float32(scores), mask))
    return weighted_sum(values, weights), weights


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
    values_f32 = at_least_float32(values)
    mean, weights = attention_pool(values_f32, scores, mask, temperature=temperature)
    variance = weighted_sum((values_f32 - mean[..., None, :]) ** 2, weights)
    has_valid = jnp.any(weights > 0, axis=-1, keepdims=True)
    deviation = jnp.where(has_valid, jnp.sqrt(variance + eps), 0.0)
    return jnp.concatenate([mean, deviation], axis=-1).astype(values.dtype), weights


def self_frame_attention(
    frames: Float[Array, "*#batch l d"], q0: Float[Array, " d"], mask: Bool[Array, "*#batch l"]
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch l"]]:
    """`alpha_i = sigmoid(f_i^T q0)`, `f' = sum alpha_i f_i / sum alpha_i`.

    Reference: frame attention networks, Meng et al., arXiv 1907.00193. Sigmoids, not a softmax.
    """
    scores = at_least_float32(frames) @ q0  # ... l
    scores, mask = jnp.broadcast_arrays(scores, mask)
    weights = sigmoid_weights(scores, mask=mask)
    return weighted_sum(frames, weights), weights


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
    self_scores = at_least_float32(frames) @ q0  # ... l
    self_scores, mask = jnp.broadcast_arrays(self_scores, mask)
    clip_vector = at_least_float32(weighted_sum(frames, sigmoid_weights(self_scores, mask=mask)))  # ... d
    relation_scores = at_least_float32(frames) @ q1[:d] + (clip_vector @ q1[d:])[..., None]  # ... l
    weights = sigmoid_weights(self_scores, relation_scores, mask=mask)
    return jnp.concatenate(
        [weighted_sum(frames, weights), clip_vector.astype(frames.dtype)], axis=-1
    ), weights


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
    similarity = (
        at_least_float32(queries) @ jnp.swapaxes(at_least_float32(keys), -1, -2) / keys.shape[-1] ** 0.5
    )  # ... l l
    similarity, column_mask = jnp.broadcast_arrays(similarity, mask[..., None, :])
    weights = masked_mean(masked_softmax(similarity, column_mask), column_mask[..., 0, :])
    return weighted_sum(frames, weights), weights
