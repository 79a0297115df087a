"""Means and weights over the valid positions of a sequence.

For a row without a valid position the results are zeros with finite gradients (except `equal_weights`, which
then weighs all positions equally). The values at masked positions have no effect as long as they are finite.
Sums are computed in at least float32.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32


def masked_mean(
    values: Float[Array, "*batch l d"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch d"]:
    """Computes the mean over the valid positions: `sum_l m_l v_l / sum_l m_l`.

    `values` has l vectors v of width d; `mask` m is True at valid positions.

    Returns:
      The mean in the dtype of `values`; zeros if no position is valid.
    """
    total = jnp.sum(jnp.where(mask[..., None], at_least_float32(values), 0.0), axis=-2)
    count = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    return (total / count).astype(values.dtype)


def masked_softmax(
    scores: Float[Array, "*batch l"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch l"]:
    """Computes a softmax over the valid positions: `m_l exp(e_l) / sum_j m_j exp(e_j)`.

    `scores` are e; `mask` m is True at valid positions.

    Returns:
      Weights in at least float32, 0 at masked positions; all zeros if no position is valid.
    """
    lowest_score = jnp.finfo(jnp.float32).min
    scores_f32 = at_least_float32(scores)
    max_score = jax.lax.stop_gradient(
        jnp.max(jnp.where(mask, scores_f32, lowest_score), axis=-1, keepdims=True)
    )
    exponentials = jnp.where(mask, jnp.exp(jnp.where(mask, scores_f32 - max_score, 0.0)), 0.0)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / jnp.where(total > 0, total, 1.0)


def sigmoid_weights(
    *scores: Float[Array, "*batch l"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch l"]:
    """Computes weights from products of sigmoids, normalised over the valid positions.

    `w_l = prod_i sigmoid(e^i_l) / sum_j prod_i sigmoid(e^i_j)`. It is computed as a softmax of log-sigmoids,
    so very negative scores do not give 0/0.

    Args:
      *scores: one or more arrays of scores e^i.
      mask: True at valid positions.

    Returns:
      Weights in at least float32, 0 at masked positions; all zeros if no position is valid.
    """
    log_weights = [jax.nn.log_sigmoid(at_least_float32(e)) for e in scores]
    return masked_softmax(functools.reduce(jnp.add, log_weights), mask)


def weighted_sum(
    values: Float[Array, "*batch l d"], weights: Float[Array, "*rows l"]
) -> Float[Array, "*rows d"]:
    """Computes `sum_l w_l v_l` over the l positions, for values v and weights w.

    The leading axes of both broadcast against each other: values [b 1 l d] and weights [b n l] give sums
    [b n d].

    Returns:
      The sum in the dtype of `values`; it is computed in at least float32.
    """
    return jnp.einsum("...l,...ld->...d", weights, at_least_float32(values)).astype(values.dtype)


def equal_weights(mask: Bool[Array, "b m"]) -> Float[Array, "b m"]:
    """Returns equal weights over the modalities (or segments) that a clip has, or over all if it has none.

    `mask` has a row for each clip and is True for each of the m modalities that the clip has. The weights of
    each row sum to 1; they are in float32.
    """
    mask = mask | ~jnp.any(mask, axis=1, keepdims=True)
    return mask / mask.sum(axis=1, keepdims=True)
