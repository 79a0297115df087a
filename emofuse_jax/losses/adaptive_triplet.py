"""Triplets whose margins follow from their distances (M2FNet, arXiv 2206.02187)."""

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import adaptive_margin_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def adaptive_triplet_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """Triplets whose margins follow from their distances (M2FNet)."""
    return adaptive_margin_triplet(outputs.embedding, batch.label, label_weight(batch))
