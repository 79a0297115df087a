"""Decision fusion by F scores: a stream is heard on the classes that it knows."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from emofuse_jax.models.interfaces import Fused, Streams
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.measured_state import Statistic
from emofuse_jax.ops.masking import present_weights
from emofuse_jax.types import PRNGKey

FLOOR = 1e-6
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
        self.class_weights = Statistic(jnp.ones((2, classes)))

    def __call__(self, streams: Streams, key: PRNGKey | None) -> Fused:
        """Log of the weighted posterior; `modality_weights` are the streams' shares of its mass."""
        key_a, key_v = (None, None) if key is None else jax.random.split(key)
        audio, video = streams.audio[:, 0], streams.video[:, 0]
        levels = jnp.stack([self.audio_head(audio, key_a), self.video_head(video, key_v)], axis=1)  # b 2 c
        ok = jnp.stack([streams.audio_ok[:, 0], streams.video_ok[:, 0]], axis=1)  # b 2
        weights = jnp.maximum(self.class_weights[...], FLOOR)
        present = present_weights(ok)[..., None]  # b 2 1
        log_p = jax.nn.log_softmax(levels) + jnp.log(weights)
        log_p = jax.nn.log_softmax(jax.nn.logsumexp(log_p, axis=1, b=present))  # b c
        mass = (present * weights * jax.nn.softmax(levels)).sum(axis=-1)  # b 2
        aux = {
            "modality_weights": jnp.where(ok, mass / mass.sum(axis=-1, keepdims=True), 0.0),
            "class_weights": jnp.broadcast_to(self.class_weights[...], levels.shape),
            "level_logits": levels,
            "level_mask": ok,
        }
        return Fused(log_p, jnp.concatenate([audio, video], axis=-1), aux)

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
        heard = level_probabilities.sum(axis=-1) > 0  # n m
        columns = [
            f_scores(p[ok & (labels >= 0)], labels[ok & (labels >= 0)])
            for p, ok in zip(level_probabilities.swapaxes(0, 1), heard.T, strict=True)
        ]
        return state | {"class_weights": np.stack(columns).astype(np.float32)}


def f_scores(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " c"]:
    """`F_c = 2 TP_c / (2 TP_c + FP_c + FN_c)` of the likeliest class, 0 where nothing was counted."""
    classes = np.arange(probabilities.shape[-1])[:, None]
    guessed, true = probabilities.argmax(axis=-1) == classes, labels == classes  # c n
    total = guessed.sum(axis=1) + true.sum(axis=1)
    return 2 * (guessed & true).sum(axis=1) / np.maximum(total, 1)
