"""Cross-entropy of the classifier of each fusion level (AM-FBP, Zhou et al., 2021, arXiv 2111.08910)."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import cross_entropy, label_weight
from emofuse_jax.types import Batch, Outputs, WeightedSum


def level_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the cross-entropy of the logits of each level, over the levels that a clip has.

    Levels are the entire clip and the mean of its parts (am_fbp), the two streams (late, f_score), or the
    segments (hgr). Only labelled clips count.

    Args:
      outputs: outputs of a network; `aux` contains `level_logits` [b l c] and `level_mask` [b l] for the l
        levels.
      batch: the clips.
      config: `config.loss` of an experiment; `smoothing` is the label smoothing.

    Returns:
      The weighted sum in nats over clips and levels, and their total weight: a clip counts once for each of
      its levels.

    Raises:
      ValueError: if `outputs.aux` has no `level_logits`, because the fusion has no classifiers of levels.
      KeyError: if `aux` has `level_logits`, but not `level_mask`.
    """
    if "level_logits" not in outputs.aux:
        raise ValueError(
            "config.loss.objectives.levels: needs a fusion with classifiers of levels; set"
            " config.model.fusion.name to hgr or f_score, or to late or am_fbp with"
            " config.model.fusion.auxiliary=True, or this factor to 0"
        )
    logits, mask = outputs.aux["level_logits"], outputs.aux["level_mask"]  # b l c, b l
    level_count = logits.shape[1]
    weight = label_weight(batch)[:, None] * mask
    label = jnp.repeat(batch.label, level_count)  # b -> b*l
    flat_logits = logits.reshape(-1, logits.shape[-1])  # b l c -> b*l c
    return cross_entropy(flat_logits, label, weight.reshape(-1), smoothing=config.smoothing)
