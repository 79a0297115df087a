"""Triplet losses on the embedding, and a cross-entropy with a penalty for wrong polarity.

Every function returns a masked sum and the weight to divide it by, in at least float32. Distances D are
Euclidean distances between L2-normalised embeddings, so they are between 0 and 2. Triplets are mined in the
batch: for each anchor a, the farthest clip p of its class, and one clip n of another class. An anchor without
such a p or n and a row of weight 0 or label -1 count in neither sum.
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
    """Computes the batch-hard triplet loss with one margin for each pair of classes.

    `sum_a w_a max(0, D(a,p) - D(a,n) + M_{y_a,y_n})`, where p is the farthest clip of the anchor's class and
    n the clip of another class with the largest `M_{y_a,y_n} - D(a,n)`. Each clip of the batch is an anchor
    a; y is its class and D the Euclidean distance between L2-normalised embeddings. References: emotional
    metric loss (Mocanu et al., 2023, Image and Vision Computing 133); batch-hard mining (Hermans et al.,
    2017, arXiv 1703.07737).

    Args:
      embedding: one vector per clip.
      label: class of each clip; -1 leaves it out.
      weight: weight w of each clip; 0 leaves it out.
      margins: M, the margin for each pair (class of the anchor, other class).

    Returns:
      The sum, and the total weight of the anchors that have a p and an n; both are 0 if there is none.
    """
    unit_embedding = l2_normalize(at_least_float32(embedding))
    pairs = _make_pairs(unit_embedding, label, weight)
    margin = at_least_float32(margins)[
        label[:, None], label[None, :]
    ]  # b b, by the classes of the anchor and the other clip
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
    """Computes the triplet loss of M2FNet, whose margins depend on the distances.

    `sum_a w_a max(0, D_ap - (D_an + D_pn) / 2 + m_sim + m_dis)`, with `m_sim = 1 + 2 / (exp(4 D_ap) + eps)`
    and `m_dis = 1 + 2 / (exp(4 - 4 D_an) + eps)`; p is the farthest clip of the anchor's class, n the nearest
    clip of another class. Each clip of the batch is an anchor a; D_ap, D_an and D_pn are Euclidean distances
    between the L2-normalised embeddings of a, p and n. Reference: M2FNet (Chudasama et al., 2022, arXiv
    2206.02187).

    Because the embedding is normalised, the exponentials are at most e^8. The margins are differentiated too,
    as the formula says: so p is pushed away if `D_ap` is below 0.52, and n is pulled closer if `D_an` is
    above 0.31.

    Args:
      embedding: one vector per clip.
      label: class of each clip; -1 leaves it out.
      weight: weight w of each clip; 0 leaves it out.
      eps: added to the denominators of the margins.

    Returns:
      The sum, and the total weight of the anchors that have a p and an n; both are 0 if there is none.
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
    """Computes a cross-entropy that is larger if the predicted class has another polarity than the label.

    `sum_i w_i (1 + penalty [pol(argmax logits_i) != pol(y_i)]) CE_i`, in nats, with the label y_i, the
    polarity pol of a class and the cross-entropy CE_i of clip i. Reference: polarity-consistent
    cross-entropy of VAANet (Zhao et al., 2020, arXiv 2003.00832).

    Args:
      logits: one row per clip.
      label: class of each clip; -1 leaves it out.
      weight: weight w of each clip; 0 leaves it out.
      polarity: polarity of each class.
      penalty: relative increase of the loss of a clip with wrong polarity.

    Returns:
      The sum, and `sum_i w_i` over the counted clips.
    """
    weight = jnp.where(label >= 0, weight, 0.0)
    is_counted = (weight > 0)[:, None]
    log_p = jax.nn.log_softmax(jnp.where(is_counted, at_least_float32(logits), 0.0))
    cross_entropy = -jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
    has_wrong_polarity = polarity[jnp.argmax(log_p, axis=1)] != polarity[jnp.maximum(label, 0)]
    return jnp.sum(weight * (1.0 + penalty * has_wrong_polarity) * cross_entropy), jnp.sum(weight)


class _Pairs(NamedTuple):
    """Distances of all pairs of rows, the allowed positives and negatives, and the weight of each anchor."""

    distance: Float[Array, "b b"]
    is_positive: Bool[Array, "b b"]
    is_negative: Bool[Array, "b b"]
    anchor_weight: Float[Array, " b"]


def _make_pairs(
    unit_embedding: Float[Array, "b d"], label: Int[Array, " b"], weight: Float[Array, " b"]
) -> _Pairs:
    """Returns the distances of all pairs of clips, the pairs that triplets may use, and the anchors' weights.

    Nothing has a gradient. The distances are only used to choose the hardest clips: as a Gram matrix gives
    them, small ones are inexact. A clip counts if its weight is positive and its label is not -1.

    Returns:
      `distance[a, i]` of the embeddings a and i; `is_positive[a, i]`, True if i counts and is another clip of
      the class of a; `is_negative[a, i]`, True if i counts and has another class; and `anchor_weight[a]`, the
      weight of a, or 0 if a does not count, or has no positive or no negative.
    """
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
    """Computes `sqrt(|x - y|^2 + eps)` of each row; its gradient is 0 if both vectors are equal."""
    return jnp.sqrt(jnp.sum((x - y) ** 2, axis=-1) + eps)
