"""Emotional metric loss: batch-hard triplets with learned margins.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import batch_hard_triplet
from emofuse_jax.types import Batch, Outputs, WeightedSum


def emotional_metric_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the batch-hard triplet loss on the embedding with the network's learned margins.

    `sum_a w_a max(0, D(a,p) - D(a,n) + M_{y_a,y_n})` over the anchors a, i.e. labelled clips with another
    clip of their class and one of another class in the batch. y is the class `batch.label`, M the matrix
    `outputs.aux["margins"]` [c c] for c classes, D the Euclidean distance between L2-normalised rows of
    `outputs.embedding`, p the farthest clip of the anchor's class, and n the clip of another class with the
    largest `M_{y_a,y_n} - D(a,n)`. w is `batch.weight`, but 0 if the label is hidden or unknown
    (`batch.label_mask` is False). `config` is not used.

    Returns:
      The sum, and the total weight of the anchors; both are 0 if there is no anchor.

    Raises:
      ValueError: if `outputs.aux` has no `margins`, because `model.margins.kind` is "none".
    """
    if "margins" not in outputs.aux:
        raise ValueError(
            "config.loss.objectives.emotional_metric: needs learned margins; set config.model.margins.kind to"
            " triplet or hierarchical, or this factor to 0"
        )
    return batch_hard_triplet(outputs.embedding, batch.label, label_weight(batch), outputs.aux["margins"])
