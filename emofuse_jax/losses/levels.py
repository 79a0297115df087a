"""Cross-entropy of each fusion level's own classifier (AM-FBP, arXiv 2111.08910)."""

import jax.numpy as jnp

from emofuse_jax.losses.cross_entropy import cross_entropy, label_weight
from emofuse_jax.types import Batch, Outputs, WeightedSum


def level_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """Cross-entropy of each level's own logits (AM-FBP, late), over the levels that a clip has."""
    if "level_logits" not in outputs.aux:
        raise ValueError("loss.objectives: levels needs a fusion with auxiliary=True")
    logits, mask = outputs.aux["level_logits"], outputs.aux["level_mask"]  # b l c, b l
    level_count = logits.shape[1]
    weight = label_weight(batch)[:, None] * mask
    label = jnp.repeat(batch.label, level_count)  # b -> b*l
    flat_logits = logits.reshape(-1, logits.shape[-1])  # b l c -> b*l c
    return cross_entropy(flat_logits, label, weight.reshape(-1), smoothing=config.smoothing)
