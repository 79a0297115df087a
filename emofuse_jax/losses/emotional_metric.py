"""Emotional metric loss: batch-hard triplets with learned margins.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import batch_hard_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def emotional_metric_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the batch-hard triplet loss on the embedding with the network's learned margins.

    The equation is in `ops.metric_learning.batch_hard_triplet`.

    Returns:
      The sum over the anchors, i.e. clips with another clip of their class and one of another class in the
      batch, and their total weight.

    Raises:
      ValueError: if the network has no margins (`model.margins.kind` is "none").
    """
    if "margins" not in outputs.aux:
        raise ValueError("loss.objectives.emotional_metric: needs model.margins.kind=triplet or hierarchical")
    return batch_hard_triplet(outputs.embedding, batch.label, label_weight(batch), outputs.aux["margins"])
