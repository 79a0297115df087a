"""Correlation objective: maximises soft-HGR between audio, video and labels (Common Information, EMOdal)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.ops.hgr import HIGHEST_PRECISION, covariance, soft_hgr
from emofuse_jax.types import Batch, Outputs, WeightedSum


def correlation_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes the negative soft-HGR correlations between audio f, video g and labels h, over all segments.

    `-[H(f, g) + H(f, h) + H(g, h)]` with `H(f, g) = 1/(m-1) sum_i f_i^T g_i - 1/2 tr(C_f C_g)` of centred
    features f and g, their covariances C, and the total weight m. H(f, g) uses all clips that have both
    streams, labelled or not; H(f, h) and H(g, h) use the labelled clips that have the stream. So an
    unlabelled clip only contributes to H(f, g). If `outputs.aux` has no `label_features` (EMOdal), the loss
    is -H(f, g). If it has covariances of many batches, these replace C_f and C_g; C_h, whose rank is below
    the number of classes, is always that of the batch. Reference: Common Information (Ma et al., 2020, Appl.
    Sci. 10(20), 7239).

    Args:
      outputs: outputs of a network whose fusion has common features; `aux` contains `audio_common`,
        `video_common` [b l d], their masks `audio_common_mask`, `video_common_mask` [b l], and maybe the
        covariances `audio_covariance`, `video_covariance` [d d] and `label_features` [c d] (c classes).
      batch: the clips.
      config: not used.

    Returns:
      `(loss, d)`: the loss, and the width d of the features, by which it will be divided: an objective factor
      of 0.1 corresponds to a factor of 0.1 / d on the loss.

    Raises:
      ValueError: if `outputs.aux` has no `audio_common`, i.e. the fusion has no common features, or if the
        widths of the audio, video and label features differ.
      KeyError: if `aux` has `audio_common`, but not `video_common` or one of the masks.

    Warns:
      UserWarning: if d > b l / 4 and there are no covariances of many batches, as H is then badly biased.
    """
    aux = outputs.aux
    if "audio_common" not in aux:
        raise ValueError(
            "config.loss.objectives.correlation: needs a fusion with common features; set"
            " config.model.fusion.name to hgr or emodal, or this factor to 0"
        )
    features = {name: _flatten_segments(aux[f"{name}_common"]) for name in ("audio", "video")}
    masks = {name: aux[f"{name}_common_mask"] for name in features}  # b l
    covariances = {name: aux.get(f"{name}_covariance") for name in features}
    pair_weight = batch.weight[:, None] * (masks["audio"] & masks["video"])
    audio_covariance, video_covariance = covariances["audio"], covariances["video"]
    pair_covariances = None
    if audio_covariance is not None:
        assert video_covariance is not None  # layers/common_information.py sets both
        pair_covariances = (audio_covariance, video_covariance)
    total = soft_hgr(
        features["audio"], features["video"], pair_weight.reshape(-1), covariances=pair_covariances
    )
    if "label_features" in aux:
        label_features = repeat_label_features(aux["label_features"], batch, pair_weight.shape[1])
        for name, rows in features.items():
            weight = (_labelled_weight(batch)[:, None] * masks[name]).reshape(-1)
            moving = covariances[name]
            pair_covariances = None if moving is None else (moving, covariance(label_features, weight))
            total += soft_hgr(rows, label_features, weight, covariances=pair_covariances)
    return -total, jnp.float32(features["audio"].shape[-1])


def repeat_label_features(table: Float[Array, "c d"], batch: Batch, count: int) -> Float[Array, "n d"]:
    """Returns the features of each clip's label, repeated for its `count` segments (n = b `count` rows).

    `table` has one row of features for each class. The `count` rows of a clip are adjacent; those of a clip
    without a visible label or with weight 0 are zeros.
    """
    label = jnp.where(_labelled_weight(batch) > 0, batch.label, -1)
    rows = jnp.matmul(jax.nn.one_hot(label, len(table)), table, precision=HIGHEST_PRECISION)  # b d
    return jnp.repeat(rows, count, axis=0)  # b d -> b*l d


def _labelled_weight(batch: Batch) -> Float[Array, " b"]:
    return jnp.where(batch.label >= 0, label_weight(batch), 0.0)


def _flatten_segments(features: Float[Array, "b l d"]) -> Float[Array, "n d"]:
    return features.reshape(-1, features.shape[-1])  # b l d -> b*l d
