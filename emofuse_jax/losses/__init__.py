"""Objectives by name, and their weighted total: masked sums, divided once."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.losses.adaptive_triplet import adaptive_triplet_loss
from emofuse_jax.losses.correlation import correlation_loss
from emofuse_jax.losses.cross_entropy import classification_loss
from emofuse_jax.losses.emotional_metric import emotional_metric_loss
from emofuse_jax.losses.levels import level_loss
from emofuse_jax.losses.orthogonality import orthogonality_loss
from emofuse_jax.losses.polarity import polarity_loss
from emofuse_jax.types import Batch, Outputs, WeightedSum

OBJECTIVES: dict[str, Callable[[Outputs, Batch, object], WeightedSum]] = {
    "cross_entropy": classification_loss,
    "levels": level_loss,
    "correlation": correlation_loss,
    "orthogonality": orthogonality_loss,
    "emotional_metric": emotional_metric_loss,
    "adaptive_triplet": adaptive_triplet_loss,
    "polarity": polarity_loss,
}
"""Objectives by name: `(outputs, batch, config) -> (sum, weight)`."""

LOSS_DEFAULTS = {
    "smoothing": 0.0,
    "objectives": {"cross_entropy": 1.0} | {name: 0.0 for name in OBJECTIVES if name != "cross_entropy"},
}
"""Every field of `config.loss`: label smoothing, and the factor of each objective; 0 leaves it out."""


def total_loss(outputs: Outputs, batch: Batch, config) -> tuple[Float[Array, ""], dict[str, Array]]:
    """`sum_j factor_j (sum_j / weight_j)` over `config.objectives`, and each mean by its name.

    An objective without weight in this batch gives 0. Raises ValueError for an unknown objective.
    """
    total, means = jnp.zeros(()), {}
    for name, factor in config.objectives.items():
        if name not in OBJECTIVES:
            raise ValueError(f"loss.objectives: {name!r}, expected one of {', '.join(OBJECTIVES)}")
        if factor:
            means[name] = safe_mean(*OBJECTIVES[name](outputs, batch, config))
            total += factor * means[name]
    return total, means


def safe_mean(total: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """`total / weight`, 0 where nothing was counted."""
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
