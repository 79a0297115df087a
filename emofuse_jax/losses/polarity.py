"""Cross-entropy that weighs mistakes of polarity (VAANet, arXiv 2003.00832)."""

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import polarity_cross_entropy
from emofuse_jax.types import Batch, Outputs, WeightedSum


def polarity_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """Cross-entropy, half as much again where the answer has another polarity than the label (VAANet).

    Stands in for `cross_entropy`, which it contains.
    """
    if "polarity" not in outputs.aux:
        raise ValueError("loss.objectives: polarity needs model.polarity, one number for each class")
    class_polarity = outputs.aux["polarity"]
    return polarity_cross_entropy(outputs.logits, batch.label, label_weight(batch), class_polarity)
