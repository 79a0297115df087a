"""Learned replacements for a missing modality in fusions that multiply two vectors."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import PooledVectors


class MissingModalityVectors(nnx.Module):
    """Learned vector for each modality that replaces the pooled vector of clips without this modality.

    `h_m' = h_m` if the clip has modality m, else `s_m`. Without biases, `U^T 0 o V^T h = 0`, so a clip
    without faces would also lose its audio. With `s_m`, `U^T s o V^T h` is a linear map of the other vector,
    which still determines the prediction.

    `s_m` starts at ones and is trained only by clips without modality m. If all training clips are complete,
    set `augment.audio_dropout` and `augment.video_dropout`: otherwise `s_m` is never trained, and predictions
    from one stream alone use an untrained map.
    """

    def __init__(self, d_a: int, d_v: int) -> None:
        self.audio = nnx.Param(jnp.ones(d_a))
        self.video = nnx.Param(jnp.ones(d_v))

    def __call__(self, pooled: PooledVectors) -> tuple[Float[Array, "b d_a"], Float[Array, "b d_v"]]:
        """Returns `(audio, video)`: vectors of the entire clip, learned ones for clips without the modality.

        `pooled` has `audio` [b n d_a] and `video` [b n d_v], with the entire clip at index 0, and their masks
        [b n], True where the modality is present. Raises ValueError if `pooled` lacks the vectors of a
        modality because the network has no encoder for it.
        """
        audio, audio_mask, video, video_mask = (x[:, 0] for x in pooled.of_both_modalities())
        return (
            _replace_missing(audio, audio_mask, self.audio[...]),
            _replace_missing(video, video_mask, self.video[...]),
        )


def _replace_missing(
    vector: Float[Array, "b d"], is_present: Bool[Array, " b"], replacement: Float[Array, " d"]
) -> Float[Array, "b d"]:
    return jnp.where(is_present[:, None], vector, replacement.astype(vector.dtype))
