"""Cross-entropies: of the network's answer, and of each level's own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import Batch, Outputs, WeightedSum


def cross_entropy(
    logits: Float[Array, "b c"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    *,
    smoothing: float | Float[Array, ""] = 0.0,
    mixup: tuple[Int[Array, " b"], Float[Array, " b"]] | None = None,
) -> WeightedSum:
    """`(sum_i w_i CE_i, sum_i w_i)`, `CE = -sum_c q_c log softmax(logits)_c`, in nats and float32.

    `q = (1 - smoothing) onehot + smoothing / c` (Szegedy et al., arXiv 1512.00567); with `mixup`, another
    label and its share s, `onehot` is `(1 - s) onehot(label) + s onehot(other)`. A row whose label is -1 or
    whose weight is 0 counts in neither sum.
    """
    weight = jnp.where(label >= 0, weight, 0.0)
    is_counted = weight > 0
    log_p = jax.nn.log_softmax(jnp.where(is_counted[:, None], at_least_float32(logits), 0.0))
    target = jax.nn.one_hot(label, logits.shape[-1])
    if mixup is not None:
        mixed_label, mixed_share = mixup
        target += mixed_share[:, None] * (jax.nn.one_hot(mixed_label, logits.shape[-1]) - target)
    target = target * (1.0 - smoothing) + smoothing / logits.shape[-1]
    return jnp.sum(weight * -jnp.sum(target * log_p, axis=-1)), jnp.sum(weight)


def classification_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """Cross-entropy of the network's logits."""
    mixup = None if batch.mixed_label is None else (batch.mixed_label, batch.mixed_share)
    weight = label_weight(batch)
    return cross_entropy(outputs.logits, batch.label, weight, smoothing=config.smoothing, mixup=mixup)


def label_weight(batch: Batch) -> Float[Array, " b"]:
    """Weight of each row in an objective that needs its label."""
    return batch.weight * batch.label_mask
