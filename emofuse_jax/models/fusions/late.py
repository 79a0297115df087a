"""Late fusion: the mean of the posteriors of both streams."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.head import Head
from emofuse_jax.ops.masking import equal_weights
from emofuse_jax.types import PRNGKey


class Late(nnx.Module):
    """Fusion `p = sum_m w_m softmax(head_m(h_m))`; w is 1/2, or 1 for the only modality of a clip.

    The logits are `log p`. With `config.auxiliary`, `aux` also has the logits of the two heads, for the
    objective `levels`.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3, "auxiliary": False}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.audio_head = Head(d_a, classes, config.head_dropout, rngs=rngs)
        self.video_head = Head(d_v, classes, config.head_dropout, rngs=rngs)
        self.auxiliary = config.auxiliary

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits as the log of the mean posterior of the streams that a clip has.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d_a+d_v], both vectors side by side;
          and the dict `aux` with `modality_weights` [b 2] of (audio, video): 1/2 each, or 1 for the only
          modality of a clip, and 0 for an absent one (a clip with neither has the mean of both); with
          `config.auxiliary` also the `level_logits` [b 2 c] of the streams, and `level_mask` [b 2], True for
          the modalities that a clip has.

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
        weights = equal_weights(modality_mask)
        aux = {"modality_weights": jnp.where(modality_mask, weights, 0.0)}
        if self.auxiliary:
            aux |= {"level_logits": stream_logits, "level_mask": modality_mask}
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(stream_logits), axis=1, b=weights[..., None])  # b c
        return FusionOutput(log_p, jnp.concatenate([audio, video], axis=-1), aux)
