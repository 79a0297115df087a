"""What a product of two vectors takes for the one that is not there."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import PooledVectors


class MissingModalityVectors(nnx.Module):
    """A learned vector for each modality, in place of the pooled vector where a clip lacks it.

    `h_m' = h_m` where `ok`, else `s_m`. Without biases, `U^T 0 o V^T h = 0`: a clip without faces would lose
    its sound too. With `s_m`, `U^T s o V^T h` is a linear map of the other vector, so the other stream still
    decides. `s_m` starts at ones and is trained by the clips that lack its modality: give
    `augment.audio_dropout` and `augment.video_dropout` where the training clips are whole, or it stays where
    it began and one stream alone is answered by a map that was never trained.
    """

    def __init__(self, d_a: int, d_v: int):
        self.audio = nnx.Param(jnp.ones(d_a))
        self.video = nnx.Param(jnp.ones(d_v))

    def __call__(self, pooled: PooledVectors) -> tuple[Float[Array, "b d_a"], Float[Array, "b d_v"]]:
        """The whole clip's two vectors, stand-ins where a modality is absent."""
        return (
            _replace_missing(pooled.audio[:, 0], pooled.audio_ok[:, 0], self.audio[...]),
            _replace_missing(pooled.video[:, 0], pooled.video_ok[:, 0], self.video[...]),
        )


def _replace_missing(
    vector: Float[Array, "b d"], is_present: Bool[Array, " b"], replacement: Float[Array, " d"]
):
    return jnp.where(is_present[:, None], vector, replacement.astype(vector.dtype))
