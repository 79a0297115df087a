"""Emotional metric loss: batch-hard triplets with learnable margins (Mocanu et al., 2023)."""

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import batch_hard_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def emotional_metric_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """Batch-hard triplets with the network's learnable margins (Mocanu et al., 2023)."""
    if "margins" not in outputs.aux:
        raise ValueError("loss.objectives: emotional_metric needs model.margins.kind=triplet or hierarchical")
    return batch_hard_triplet(outputs.embedding, batch.label, label_weight(batch), outputs.aux["margins"])
