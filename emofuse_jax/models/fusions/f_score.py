"""Decision fusion by F scores: a stream is heard on the classes that it knows."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.ops.masking import equal_weights
from emofuse_jax.types import PRNGKey

MIN_CLASS_WEIGHT = 1e-6
"""Least weight in the sum, so that a class that neither stream knows keeps a finite log posterior."""


class FScore(nnx.Module):
    """`p_c ~ sum_m F_mc p_mc` over the modalities that a clip has, `p_m = softmax(head_m(h_m))`.

    F_mc is the F score of stream m on class c over the validation clips, set by `calibrate` and not trained;
    1 before the first epoch's end, which is the mean of the posteriors. The two heads are trained each on its
    own (objective `levels`). The logits are `log p`.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.audio_head = Head(d_a, classes, config.head_dropout, rngs=rngs)
        self.video_head = Head(d_v, classes, config.head_dropout, rngs=rngs)
        self.class_weights = MeasuredState(jnp.ones((2, classes)))

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Log of the weighted posterior; `modality_weights` are the streams' shares of its mass."""
        key_a, key_v = (None, None) if key is None else jax.random.split(key)
        audio, video = pooled.audio[:, 0], pooled.video[:, 0]
        stream_logits = jnp.stack(
            [self.audio_head(audio, key_a), self.video_head(video, key_v)], axis=1
        )  # b 2 c
        modality_mask = jnp.stack([pooled.audio_ok[:, 0], pooled.video_ok[:, 0]], axis=1)  # b 2
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
        state: dict, level_probabilities: Float[np.ndarray, "n 2 c"], labels: Int[np.ndarray, " n"]
    ) -> dict:
        """The fusion's state with F scores from validation clips.

        Args:
          state: the fusion's part of the model state.
          level_probabilities: posteriors of each stream; a row of zeros where the clip lacks it.
          labels: of the clips, -1 where unknown.
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
    """`F_c = 2 TP_c / (2 TP_c + FP_c + FN_c)` of the likeliest class, 0 where nothing was counted."""
    classes = np.arange(probabilities.shape[-1])[:, None]
    is_predicted, is_true = probabilities.argmax(axis=-1) == classes, labels == classes  # c n
    total = is_predicted.sum(axis=1) + is_true.sum(axis=1)
    return 2 * (is_predicted & is_true).sum(axis=1) / np.maximum(total, 1)
