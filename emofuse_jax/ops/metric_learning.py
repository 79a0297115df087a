"""Losses that shape the embedding, and cross-entropy that minds the polarity; masked sums and weights.

Distances are Euclidean between L2-normalised embeddings, so between 0 and 2. Triplets are mined in the batch:
for each anchor the farthest clip of its class, and one of another class. An anchor that lacks either, and a
row of weight 0, count in neither sum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.ops.normalize import at_least_float32, l2_normalize
from emofuse_jax.types import WeightedSum


def batch_hard_triplet(
    embedding: Float[Array, "b d"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    margins: Float[Array, "c c"],
) -> WeightedSum:
    """`sum_a w_a [D(a,p) - D(a,n) + M_{y_a,y_n}]_+` and the weight of its anchors.

    p is the farthest positive, n the negative with the largest term. Reference: emotional metric loss, Mocanu
    et al., Image and Vision Computing 133, 2023; batch-hard mining, Hermans et al., arXiv 1703.07737.
    """
    unit_embedding = l2_normalize(at_least_float32(embedding))
    pairs = _make_pairs(unit_embedding, label, weight)
    margin = at_least_float32(margins)[
        label[:, None], label[None, :]
    ]  # b b, of the anchor's class and the other's
    p, n = _hardest(pairs.distance, pairs.is_positive), _hardest(margin - pairs.distance, pairs.is_negative)
    negative_margin = jnp.take_along_axis(margin, n[:, None], axis=1)[:, 0]
    loss = jax.nn.relu(
        _distance(unit_embedding, unit_embedding[p])
        - _distance(unit_embedding, unit_embedding[n])
        + negative_margin
    )
    return jnp.sum(pairs.anchor_weight * loss), jnp.sum(pairs.anchor_weight)


def adaptive_margin_triplet(
    embedding: Float[Array, "b d"], label: Int[Array, " b"], weight: Float[Array, " b"], *, eps: float = 1e-6
) -> WeightedSum:
    """`sum_a w_a [D_ap - (D_an + D_pn) / 2 + m_sim + m_dis]_+` and the weight of its anchors.

    `m_sim = 1 + 2 / (exp(4 D_ap) + eps)`, `m_dis = 1 + 2 / (exp(4 - 4 D_an) + eps)`, p the farthest positive,
    n the nearest negative. Reference: M2FNet, arXiv 2206.02187. The normalised embedding bounds the powers by
    e^8. The margins are differentiated like the rest, as the formula says: below `D_ap = .52` a positive is
    pushed away, above `D_an = .31` a negative is drawn near.
    """
    unit_embedding = l2_normalize(at_least_float32(embedding))
    pairs = _make_pairs(unit_embedding, label, weight)
    p, n = _hardest(pairs.distance, pairs.is_positive), _hardest(-pairs.distance, pairs.is_negative)
    d_ap, d_an, d_pn = (
        _distance(unit_embedding, unit_embedding[p]),
        _distance(unit_embedding, unit_embedding[n]),
        _distance(unit_embedding[p], unit_embedding[n]),
    )
    similar_margin = 1.0 + 2.0 / (jnp.exp(4.0 * d_ap) + eps)
    dissimilar_margin = 1.0 + 2.0 / (jnp.exp(4.0 - 4.0 * d_an) + eps)
    loss = jax.nn.relu(d_ap - 0.5 * (d_an + d_pn) + similar_margin + dissimilar_margin)
    return jnp.sum(pairs.anchor_weight * loss), jnp.sum(pairs.anchor_weight)


def polarity_cross_entropy(
    logits: Float[Array, "b c"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    polarity: Float[Array, " c"] | Int[Array, " c"],
    penalty: float = 0.5,
) -> WeightedSum:
    """`sum_i w_i (1 + penalty [pol(argmax logits_i) != pol(y_i)]) CE_i` and `sum_i w_i`, in nats.

    Reference: the polarity-consistent cross-entropy of VAANet, arXiv 2003.00832.
    """
    weight = jnp.where(label >= 0, weight, 0.0)
    is_counted = (weight > 0)[:, None]
    log_p = jax.nn.log_softmax(jnp.where(is_counted, at_least_float32(logits), 0.0))
    cross_entropy = -jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
    has_wrong_polarity = polarity[jnp.argmax(log_p, axis=1)] != polarity[jnp.maximum(label, 0)]
    return jnp.sum(weight * (1.0 + penalty * has_wrong_polarity) * cross_entropy), jnp.sum(weight)


class _Pairs(NamedTuple):
    """Which rows go together, b x b, and the weight of each row as an anchor."""

    distance: Float[Array, "b b"]
    is_positive: Bool[Array, "b b"]
    is_negative: Bool[Array, "b b"]
    anchor_weight: Float[Array, " b"]


def _make_pairs(
    unit_embedding: Float[Array, "b d"], label: Int[Array, " b"], weight: Float[Array, " b"]
) -> _Pairs:
    """Distances are for choosing alone: those of a Gram matrix are inexact where they are small."""
    detached = jax.lax.stop_gradient(unit_embedding)
    gram = jnp.matmul(detached, detached.T, precision="highest")
    squared_norm = jnp.diagonal(gram)
    distance = jnp.sqrt(jnp.maximum(squared_norm[:, None] + squared_norm[None, :] - 2.0 * gram, 0.0))
    is_counted = (weight > 0) & (label >= 0)
    same_class = label[:, None] == label[None, :]
    is_positive = same_class & is_counted[None, :] & ~jnp.eye(len(label), dtype=bool)
    is_negative = ~same_class & is_counted[None, :]
    is_anchor = is_counted & is_positive.any(axis=1) & is_negative.any(axis=1)
    return _Pairs(distance, is_positive, is_negative, jnp.where(is_anchor, weight, 0.0))


def _hardest(score: Float[Array, "b b"], allowed: Bool[Array, "b b"]) -> Int[Array, " b"]:
    return jnp.argmax(jnp.where(allowed, score, -jnp.inf), axis=1)


def _distance(x: Float[Array, "b d"], y: Float[Array, "b d"], eps: float = 1e-12) -> Float[Array, " b"]:
    """`sqrt(|x - y|^2 + eps)`, whose gradient is 0 where both are the same."""
    return jnp.sqrt(jnp.sum((x - y) ** 2, axis=-1) + eps)
