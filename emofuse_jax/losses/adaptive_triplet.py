"""Triplet loss whose margins depend on the distances (M2FNet, Chudasama et al., 2022, arXiv 2206.02187)."""

from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import adaptive_margin_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def adaptive_triplet_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the adaptive-margin triplet loss of M2FNet on the embedding, over the labelled clips.

    The equation is in `ops.metric_learning.adaptive_margin_triplet`.

    Returns:
      The sum over the anchors, i.e. clips with another clip of their class and one of another class in the
      batch, and their total weight.
    """
    return adaptive_margin_triplet(outputs.embedding, batch.label, label_weight(batch))
