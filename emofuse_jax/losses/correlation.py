"""The maximal correlation of streams and labels, maximised (P3, EMOdal)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.hgr import EXACT, covariance, soft_hgr
from emofuse_jax.types import Batch, Outputs, Sum


def correlation(outputs: Outputs, batch: Batch, config) -> Sum:
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
    features = {name: _rows(aux[f"{name}_common"]) for name in ("audio", "video")}
    masks = {name: aux[f"{name}_common_mask"] for name in features}  # b l
    c = {name: aux.get(f"{name}_covariance") for name in features}
    both = batch.weight[:, None] * (masks["audio"] & masks["video"])
    moving = None if c["audio"] is None else (c["audio"], c["video"])
    total = soft_hgr(features["audio"], features["video"], both.reshape(-1), covariances=moving)
    if "label_features" in aux:
        labels = label_rows(aux["label_features"], batch, both.shape[1])
        for name, rows in features.items():
            weight = (_labelled(batch)[:, None] * masks[name]).reshape(-1)
            moving = None if c[name] is None else (c[name], covariance(labels, weight))
            total += soft_hgr(rows, labels, weight, covariances=moving)
    return -total, jnp.float32(features["audio"].shape[-1])


def label_rows(table: Float[Array, "c d"], batch: Batch, count: int) -> Float[Array, "n d"]:
    """The label's features for each of `count` segments a clip; zeros where the label is hidden."""
    label = jnp.where(_labelled(batch) > 0, batch.label, -1)
    rows = jnp.matmul(jax.nn.one_hot(label, len(table)), table, precision=EXACT)  # b d
    return jnp.repeat(rows, count, axis=0)  # b d -> b*l d


def _labelled(batch: Batch) -> Float[Array, " b"]:
    return jnp.where(batch.label >= 0, label_weight(batch), 0.0)


def _rows(features: Float[Array, "b l d"]) -> Float[Array, "n d"]:
    return features.reshape(-1, features.shape[-1])  # b l d -> b*l d
