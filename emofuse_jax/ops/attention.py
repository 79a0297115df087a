"""Pools a sequence into one vector by attention.

Leading axes of the values, scores and mask broadcast against each other. Every function also returns the
weights, which sum to 1 over the valid positions. A row without a valid position gives zeros for both.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_mean, masked_softmax, sigmoid_weights, weighted_sum
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.ops.shapes import check_shapes


def attention_pool(
    values: Float[Array, "*#batch l d"],
    scores: Float[Array, "*#batch l"],
    mask: Bool[Array, "*#batch l"],
    *,
    temperature: float = 0.3,
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch l"]]:
    """Pools a sequence into its weighted mean, with softmax weights.

    `alpha = softmax(lambda e)` over the valid positions, `c = sum_l alpha_l v_l`. Reference: Zhang et al.,
    2018, arXiv 1806.01506.

    Args:
      values: vectors v to pool.
      scores: one score e per position.
      mask: True at valid positions, False at padding or where nothing was observed.
      temperature: lambda of the paper, a factor on the scores; 0 gives the plain mean.

    Returns:
      `(c, alpha)`: the pooled vectors in the dtype of `values`, and the weights of the l positions in at
      least float32. Both are zero if no position is valid.

    Raises:
      ValueError: the shapes do not fit together.
    """
    check_shapes({"values": (values, "... l d"), "scores": (scores, "... l"), "mask": (mask, "... l")})
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
    """Pools a sequence into its weighted mean and standard deviation (attentive statistics pooling).

    `[mu; sqrt(sum_l alpha_l (v_l - mu)^2 + eps)]`, with `alpha = softmax(temperature s)` over the valid
    positions and the weighted mean `mu = sum_l alpha_l v_l`. Reference: Okabe et al., 2018, arXiv 1803.10963.

    Args:
      values: vectors v to pool.
      scores: one score s per position.
      mask: True at valid positions.
      temperature: factor on the scores; 0 gives equal weights.
      eps: added to the variance.

    Returns:
      `(pooled, weights)`: mean and standard deviation side by side (width e = 2 d) in the dtype of `values`,
      and the weights alpha of the l positions in at least float32. Both are zero if no position is valid.

    Raises:
      ValueError: the shapes do not fit together.
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
    """Pools frames with one sigmoid weight per frame, computed from the frame alone.

    `alpha_i = sigmoid(f_i^T q0)`, `f' = sum_i alpha_i f_i / sum_i alpha_i`, with sums over the valid frames.
    The weights are sigmoids divided by their sum, not a softmax. Reference: frame attention networks, Meng et
    al., 2019, arXiv 1907.00193.

    Args:
      frames: one vector f_i per frame.
      q0: learned query.
      mask: True at valid frames.

    Returns:
      `(vectors, weights)`: the pooled vectors f' in the dtype of `frames`, and the weights
      `alpha_i / sum_i alpha_i` of the l frames in at least float32. Both are zero if no frame is valid.

    Raises:
      ValueError: if the shapes of `frames` (without d) and `mask` do not broadcast.
      TypeError: if `q0` does not have the width d.
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
    """Pools frames with weights that also depend on how each frame relates to the pooled clip vector.

    `beta_i = sigmoid([f_i; f']^T q1)`, `f_v = sum_i alpha_i beta_i [f_i; f'] / sum_i alpha_i beta_i`, with
    `alpha_i = sigmoid(f_i^T q0)` and the clip vector `f' = sum_i alpha_i f_i / sum_i alpha_i`. Sums are over
    the valid frames. Reference: frame attention networks, Meng et al., 2019, arXiv 1907.00193.

    Args:
      frames: one vector f_i per frame.
      q0: learned query of the self-attention.
      q1: learned query of the relation attention, of width e = 2 d.
      mask: True at valid frames.

    Returns:
      `(vectors, weights)`: the pooled vectors f_v of width e = 2 d in the dtype of `frames`, and the weights
      `alpha_i beta_i / sum_i alpha_i beta_i` of the l frames in at least float32. Both are zero if no frame
      is valid.

    Raises:
      ValueError: if the shapes of `frames` (without d) and `mask` do not broadcast.
      TypeError: if `q0` does not have the width d, or `q1` not the width 2 d.
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
    """Pools frames with weights from the similarity of all pairs of frames.

    `A = softmax_j(q_i^T k_j / sqrt(r))`, `w = mean_i A_i`, `f_v = sum_j w_j f_j`, with softmax, mean and sum
    over the valid frames: the mean over the rows i of A gives one weight per frame. Reference: arXiv
    2012.13912.

    Args:
      frames: one vector f_j per frame.
      queries: frames after a linear reduction to width r.
      keys: frames after another linear reduction to width r.
      mask: True at valid frames.

    Returns:
      `(vectors, weights)`: the pooled vectors f_v in the dtype of `frames`, and the weights w of the l frames
      in at least float32. Both are zero if no frame is valid.

    Raises:
      ValueError: if the shapes of `frames` (without d), `queries` (without r) and `mask` do not broadcast.
      TypeError: if `queries` and `keys` have different widths.
    """
    similarity = (
        at_least_float32(queries) @ jnp.swapaxes(at_least_float32(keys), -1, -2) / keys.shape[-1] ** 0.5
    )  # ... l l
    similarity, column_mask = jnp.broadcast_arrays(similarity, mask[..., None, :])
    weights = masked_mean(masked_softmax(similarity, column_mask), column_mask[..., 0, :])
    return weighted_sum(frames, weights), weights
