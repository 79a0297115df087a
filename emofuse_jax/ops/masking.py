"""Means and weights over the valid positions only.

Every function gives zeros, and finite gradients, for a row without one valid position; which finite
number stands at a masked position never matters. Sums run in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32


def masked_mean(
    values: Float[Array, "*batch l d"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch d"]:
    """`sum_l m_l v_l / sum_l m_l`."""
    total = jnp.sum(jnp.where(mask[..., None], at_least_float32(values), 0.0), axis=-2)
    count = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    return (total / count).astype(values.dtype)


def masked_softmax(
    scores: Float[Array, "*batch l"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch l"]:
    """`m_l exp(e_l) / sum_j m_j exp(e_j)`, in float32."""
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
    """`prod_i sigmoid(e^i_l)`, divided by its sum over the valid `l`, in float32.

    Computed as a softmax of log-sigmoids, so that very negative scores don't give 0/0.
    """
    return masked_softmax(sum(jax.nn.log_sigmoid(at_least_float32(e)) for e in scores), mask)


def weighted_sum(
    values: Float[Array, "*batch l d"], weights: Float[Array, "*rows l"]
) -> Float[Array, "*rows d"]:
    """`sum_l w_l v_l` in float32, given back in the dtype of `values`; leading axes broadcast."""
    return jnp.einsum("...l,...ld->...d", weights, at_least_float32(values)).astype(values.dtype)


def equal_weights(mask: Bool[Array, "b m"]) -> Float[Array, "b m"]:
    """Equal weights over the modalities that a clip has, over all of them where it has none."""
    mask = mask | ~jnp.any(mask, axis=1, keepdims=True)
    return mask / mask.sum(axis=1, keepdims=True)
