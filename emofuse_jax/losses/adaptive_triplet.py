"""Triplet loss whose margins depend on the distances (M2FNet, Chudasama et al., 2022, arXiv 2206.02187)."""

from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import adaptive_margin_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def adaptive_triplet_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the adaptive-margin triplet loss of M2FNet on the embedding, over the labelled clips.

    `sum_a w_a max(0, D_ap - (D_an + D_pn) / 2 + m_sim + m_dis)` over the anchors a, i.e. clips with another
    clip of their class and one of another class in the batch. p is the farthest clip of the anchor's class, n
    the nearest clip of another class, D the Euclidean distance between L2-normalised rows of
    `outputs.embedding`, `m_sim = 1 + 2 / exp(4 D_ap)` and `m_dis = 1 + 2 / exp(4 - 4 D_an)`. The class is
    `batch.label`, and w is `batch.weight`, but 0 if the label is hidden or unknown (`batch.label_mask` is
    False). `config` is not used.

    Returns:
      The sum, and the total weight of the anchors; both are 0 if there is no anchor.
    """
    return adaptive_margin_triplet(outputs.embedding, batch.label, label_weight(batch))
