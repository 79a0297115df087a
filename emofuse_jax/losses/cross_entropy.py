"""Cross-entropy of logits, and the objective on the logits of the network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

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
    """Computes the weighted sum of cross-entropies, with label smoothing and mixup.

    `sum_i w_i CE_i` with `CE = -sum_c q_c log softmax(logits)_c` and
    `q = (1 - smoothing) onehot(label) + smoothing / C` for C classes (Szegedy et al., 2015, arXiv
    1512.00567). With mixup, `onehot(label)` becomes `(1 - s) onehot(label) + s onehot(other)`.

    Args:
      logits: one row per clip.
      label: class of each clip; -1 leaves it out.
      weight: weight w of each clip; 0 leaves it out.
      smoothing: label smoothing, in [0, 1].
      mixup: the other label of each clip and its share s (data/augment/mixup.py), or None. -1 as the other
        label adds nothing to the target.

    Returns:
      The sum in nats, and `sum_i w_i` over the counted clips, both in at least float32.
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


def classification_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the cross-entropy of the network's logits, over the labelled clips.

    `config` is `config.loss` of an experiment; its `smoothing`, in [0, 1], is the label smoothing. If the
    batch has `mixed_label`, the target of a clip is `1 - mixed_share` of its label and `mixed_share` of the
    mixed label.

    Returns:
      The weighted sum in nats, and the total weight of the labelled clips.
    """
    mixup = None
    if batch.mixed_label is not None:
        assert batch.mixed_share is not None  # data/augment/mixup.py sets both
        mixup = (batch.mixed_label, batch.mixed_share)
    weight = label_weight(batch)
    return cross_entropy(outputs.logits, batch.label, weight, smoothing=config.smoothing, mixup=mixup)


def label_weight(batch: Batch) -> Float[Array, " b"]:
    """Returns the weight of each row in objectives that need labels.

    It is `batch.weight`, or 0 if `batch.label_mask` is False (a hidden or unknown label); 0 for padding.
    """
    return batch.weight * batch.label_mask
