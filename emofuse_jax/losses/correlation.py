"""The maximal correlation of streams and labels, maximised (Ma et al., 2020; EMOdal)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.hgr import HIGHEST_PRECISION, covariance, soft_hgr
from emofuse_jax.types import Batch, Outputs, WeightedSum


def correlation_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """`(-[H(f, g) + H(f, h) + H(g, h)], d)`: soft-HGR of sound f, faces g and labels h, over segments.

    H(f, g) is over all clips, labelled or not, where both streams are there; H(f, h) and H(g, h) are over
    labelled clips where the stream is, so that an unlabelled clip gives -H(f, g) alone. Divided by the width
    d, a factor of 0.1 is lambda = 0.1 / d. Without `label_features` in `aux` (EMOdal) it is -H(f, g). With
    covariances of many batches in `aux` these stand for C_f and C_g; C_h, of rank below the number of
    classes, is always the batch's. Reference: Ma et al., Appl. Sci. 2020, 10(20), 7239.

    Raises:
      ValueError: a fusion without common features.
    """
    aux = outputs.aux
    if "audio_common" not in aux:
        raise ValueError("loss.objectives: correlation needs a fusion with common features (hgr, emodal)")
    features = {name: _flatten_segments(aux[f"{name}_common"]) for name in ("audio", "video")}
    masks = {name: aux[f"{name}_common_mask"] for name in features}  # b l
    covariances = {name: aux.get(f"{name}_covariance") for name in features}
    pair_weight = batch.weight[:, None] * (masks["audio"] & masks["video"])
    pair_covariances = None if covariances["audio"] is None else (covariances["audio"], covariances["video"])
    total = soft_hgr(
        features["audio"], features["video"], pair_weight.reshape(-1), covariances=pair_covariances
    )
    if "label_features" in aux:
        label_features = repeat_label_features(aux["label_features"], batch, pair_weight.shape[1])
        for name, rows in features.items():
            weight = (_labelled_weight(batch)[:, None] * masks[name]).reshape(-1)
            pair_covariances = (
                None if covariances[name] is None else (covariances[name], covariance(label_features, weight))
            )
            total += soft_hgr(rows, label_features, weight, covariances=pair_covariances)
    return -total, jnp.float32(features["audio"].shape[-1])


def repeat_label_features(table: Float[Array, "c d"], batch: Batch, count: int) -> Float[Array, "n d"]:
    """The label's features for each of `count` segments a clip; zeros where the label is hidden."""
    label = jnp.where(_labelled_weight(batch) > 0, batch.label, -1)
    rows = jnp.matmul(jax.nn.one_hot(label, len(table)), table, precision=HIGHEST_PRECISION)  # b d
    return jnp.repeat(rows, count, axis=0)  # b d -> b*l d


def _labelled_weight(batch: Batch) -> Float[Array, " b"]:
    return jnp.where(batch.label >= 0, label_weight(batch), 0.0)


def _flatten_segments(features: Float[Array, "b l d"]) -> Float[Array, "n d"]:
    return features.reshape(-1, features.shape[-1])  # b l d -> b*l d
