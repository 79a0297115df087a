"""Cross-entropy with a penalty for wrong polarity (VAANet, Zhao et al., 2020, arXiv 2003.00832)."""

from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.metric_learning import polarity_cross_entropy
from emofuse_jax.types import Batch, Outputs, WeightedSum


def polarity_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the polarity-consistent cross-entropy of VAANet, over the labelled clips.

    The cross-entropy of a clip counts 1.5 times if the predicted class has another polarity than the label;
    the polarities [c] are in `outputs.aux["polarity"]`. Use this objective instead of `cross_entropy`, not in
    addition. `config` is not used.

    Returns:
      The weighted sum in nats, and the total weight of the labelled clips.

    Raises:
      ValueError: if `outputs.aux` has no `polarity`, because `model.polarity` is not set.
    """
    if "polarity" not in outputs.aux:
        raise ValueError(
            "config.loss.objectives.polarity: needs the polarity of the classes; set config.model.polarity to"
            " -1, 0 or 1 for each class, or this factor to 0"
        )
    class_polarity = outputs.aux["polarity"]
    return polarity_cross_entropy(outputs.logits, batch.label, label_weight(batch), class_polarity)
