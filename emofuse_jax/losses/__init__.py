"""Names the objectives and sums them, weighted: masked sums, divided once."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emofuse_jax.losses.adaptive_triplet import adaptive_triplet_loss
from emofuse_jax.losses.correlation import correlation_loss
from emofuse_jax.losses.cross_entropy import classification_loss
from emofuse_jax.losses.emotional_metric import emotional_metric_loss
from emofuse_jax.losses.levels import level_loss
from emofuse_jax.losses.orthogonality import orthogonality_loss
from emofuse_jax.losses.polarity import polarity_loss
from emofuse_jax.types import Batch, Outputs, WeightedSum
from emofuse_jax.utils.registry import Registry

Objective = Callable[[Outputs, Batch, ConfigDict], WeightedSum]
"""Computes `(sum, weight)` of a batch from the outputs, the batch and `config.loss`."""


def check_objective(objective: Objective) -> None:
    """Raises ValueError if `objective` is not callable."""
    if not callable(objective):
        raise ValueError(
            f"{objective!r} can't be called; register a function (outputs, batch, config) -> (sum, weight)"
        )


BUILTIN_OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": classification_loss,
    "levels": level_loss,
    "correlation": correlation_loss,
    "orthogonality": orthogonality_loss,
    "emotional_metric": emotional_metric_loss,
    "adaptive_triplet": adaptive_triplet_loss,
    "polarity": polarity_loss,
}

OBJECTIVES: Registry[Objective] = Registry(
    "objective", "emofuse.objectives", BUILTIN_OBJECTIVES, check_objective
)


def loss_defaults() -> ConfigDict:
    """Returns the defaults of `config.loss`: `smoothing` of the labels, 0, and `objectives`.

    `objectives` has the factor of each built-in objective by name: 1 for `cross_entropy`, 0 (unused) for
    `levels`, `correlation`, `orthogonality`, `emotional_metric`, `adaptive_triplet` and `polarity`. A config
    that uses a registered objective adds its factor; others do not depend on what is registered, so that
    their checkpoints can be read anywhere.
    """
    factors = dict.fromkeys(BUILTIN_OBJECTIVES, 0.0) | {"cross_entropy": 1.0}
    return ConfigDict({"smoothing": 0.0, "objectives": factors})


def total_loss(
    outputs: Outputs, batch: Batch, config: ConfigDict
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns `(total, means)`: the weighted sum of the objectives, and the mean of each objective by name.

    `total = sum_j factor_j * means_j`. An objective returns its sum over the batch and the weight of this
    sum; its mean is the sum divided by the weight, or 0 if the weight is 0. Objectives with factor 0 are not
    computed and are not in `means`. Errors of registered objectives pass through.

    Args:
      outputs: outputs of the network for the batch; objectives read `logits`, `embedding` and the dict `aux`.
      batch: the clips, with `label`, `label_mask` and `weight`.
      config: `config.loss` of an experiment: `objectives` has the factor of each objective by name,
        `smoothing` is the label smoothing.

    Raises:
      ValueError: `config.objectives` has an unknown name (with any factor), an installed package provides the
        objective but it can't be imported or called, or an objective needs an output that the network does
        not have.
      KeyError: `outputs.aux` has one of the arrays that an objective needs, but not the others.
    """
    total, means = jnp.zeros(()), {}
    for name, factor in config.objectives.items():
        objective = OBJECTIVES.require(name, "config.loss.objectives")
        if factor:
            means[name] = safe_mean(*objective(outputs, batch, config))
            total += factor * means[name]
    return total, means


def safe_mean(total: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """Returns `total / weight`, or 0 if the weight is 0."""
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
