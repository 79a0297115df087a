"""Metric learning on the fused embedding, and cross-entropy that minds the polarity."""

from emofuse_jax.objectives.classification import label_weight
from emofuse_jax.ops.metric_learning import (
    adaptive_margin_triplet,
    batch_hard_triplet,
    polarity_cross_entropy,
)
from emofuse_jax.types import Batch, Outputs, Sum


def emotional_metric(outputs: Outputs, batch: Batch, config) -> Sum:
    """Batch-hard triplets with the network's learnable margins (P4)."""
    if "margins" not in outputs.aux:
        raise ValueError("loss.objectives: emotional_metric needs model.margins.kind=triplet or hierarchical")
    return batch_hard_triplet(outputs.embedding, batch.label, label_weight(batch), outputs.aux["margins"])


def adaptive_triplet(outputs: Outputs, batch: Batch, config) -> Sum:
    """Triplets whose margins follow from their distances (M2FNet)."""
    return adaptive_margin_triplet(outputs.embedding, batch.label, label_weight(batch))


def polarity(outputs: Outputs, batch: Batch, config) -> Sum:
    """Cross-entropy, half as much again where the answer has another polarity than the label (VAANet).

    Stands in for `cross_entropy`, which it contains.
    """
    if "polarity" not in outputs.aux:
        raise ValueError("loss.objectives: polarity needs model.polarity, one number for each class")
    known = outputs.aux["polarity"]
    return polarity_cross_entropy(outputs.logits, batch.label, label_weight(batch), known)
