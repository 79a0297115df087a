"""Decision fusion by F scores: a stream has more weight on the classes that it recognises well."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.ops.masking import equal_weights
from emofuse_jax.types import Params, PRNGKey

MIN_CLASS_WEIGHT = 1e-6
"""Minimum weight, so that a class whose F scores are 0 in both streams has a finite log posterior."""


class FScore(nnx.Module):
    """Fusion `p_c ~ sum_m F_mc p_mc` over the modalities of a clip, with `p_m = softmax(head_m(h_m))`.

    F_mc is the F score of stream m on class c over the validation clips. It is not trained, but set by
    `calibrate` at the end of each epoch; it is 1 before, so that p is the mean of the posteriors. The
    objective `levels` trains the two heads separately. The logits are `log p`.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.audio_head = Head(d_a, classes, config.head_dropout, rngs=rngs)
        self.video_head = Head(d_v, classes, config.head_dropout, rngs=rngs)
        self.class_weights = MeasuredState(jnp.ones((2, classes)))

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits as the log of the posterior, a sum of both streams weighted by F scores.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d_a+d_v], both vectors side by side;
          and the dict `aux` with `modality_weights` [b 2], the share of (audio, video) in the sum, 0 for an
          absent one; `class_weights` [b 2 c], the F scores of (audio, video) that `calibrate` set (1
          before), equal for all clips; `level_logits` [b 2 c] of the streams; and `level_mask` [b 2], True
          for the modalities that a clip has.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        key_a, key_v = split_dropout_key(key, 2, train=train)
        audio, audio_mask, video, video_mask = (x[:, 0] for x in pooled.of_both_modalities())
        audio_logits = self.audio_head(audio, train=train, key=key_a)
        video_logits = self.video_head(video, train=train, key=key_v)
        stream_logits = jnp.stack([audio_logits, video_logits], axis=1)  # b 2 c
        modality_mask = jnp.stack([audio_mask, video_mask], axis=1)  # b 2
        weights = jnp.maximum(self.class_weights[...], MIN_CLASS_WEIGHT)
        presence_weights = equal_weights(modality_mask)[..., None]  # b 2 1
        log_p = jax.nn.log_softmax(stream_logits) + jnp.log(weights)
        log_p = jax.nn.log_softmax(jax.nn.logsumexp(log_p, axis=1, b=presence_weights))  # b c
        mass = (presence_weights * weights * jax.nn.softmax(stream_logits)).sum(axis=-1)  # b 2
        aux = {
            "modality_weights": jnp.where(modality_mask, mass / mass.sum(axis=-1, keepdims=True), 0.0),
            "class_weights": jnp.broadcast_to(self.class_weights[...], stream_logits.shape),
            "level_logits": stream_logits,
            "level_mask": modality_mask,
        }
        return FusionOutput(log_p, jnp.concatenate([audio, video], axis=-1), aux)

    @staticmethod
    def calibrate(
        state: Params, level_probabilities: Float[np.ndarray, "n 2 c"], labels: Int[np.ndarray, " n"]
    ) -> Params:
        """Sets the weights of the classes to the F scores of each stream on the validation clips.

        Args:
          state: the part of the model state that belongs to the fusion, a dict with the key `class_weights`.
          level_probabilities: posteriors of the c classes by (audio, video) for n clips; zeros if a clip does
            not have the modality. Such clips do not count for it.
          labels: class of each clip, from 0 to c - 1, or -1 if unknown; clips with -1 do not count.

        Returns:
          A copy of `state` with new `class_weights` [2 c] in float32, F scores in [0, 1].
        """
        modality_mask = level_probabilities.sum(axis=-1) > 0  # n m
        columns = [
            compute_f_scores(p[mask & (labels >= 0)], labels[mask & (labels >= 0)])
            for p, mask in zip(level_probabilities.swapaxes(0, 1), modality_mask.T, strict=True)
        ]
        return state | {"class_weights": np.stack(columns).astype(np.float32)}


def compute_f_scores(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " c"]:
    """Computes the F score of each class: `F_c = 2 TP_c / (2 TP_c + FP_c + FN_c)`.

    TP, FP and FN are the numbers of true positives, false positives and false negatives; the predicted class
    is the most probable one. `labels` has the true class of each of the n clips, from 0 to c - 1;
    `probabilities` has a row of c numbers for each. Scores are in [0, 1]; a class that is neither predicted
    nor a label has score 0.
    """
    classes = np.arange(probabilities.shape[-1])[:, None]
    is_predicted, is_true = probabilities.argmax(axis=-1) == classes, labels == classes  # c n
    total = is_predicted.sum(axis=1) + is_true.sum(axis=1)
    return 2 * (is_predicted & is_true).sum(axis=1) / np.maximum(total, 1)
