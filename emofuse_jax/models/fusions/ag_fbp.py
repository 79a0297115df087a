"""AG-FBP: adaptive weights of the modalities before biased FBP (arXiv 2111.08910)."""

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.fbp import ADAPTIVE_DEFAULTS, AdaptiveFBP
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class AdaptiveGlobalFBP(nnx.Module):
    """`z = FBP(beta_a h_a, beta_v h_v)` with biased projections, then the classifier."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = ADAPTIVE_DEFAULTS

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the fused vector; the weights of the modalities go to `aux`."""
        key_fbp, key_head = (None, None) if key is None else jax.random.split(key)
        modality_mask = jnp.stack([pooled.audio_ok[:, 0], pooled.video_ok[:, 0]], axis=-1)  # b 2
        z, weights, gates = self.trunk(pooled.audio[:, 0], pooled.video[:, 0], modality_mask, key_fbp)
        aux = {"trunks": z[:, None], "modality_weights": weights, **gates}
        return FusionOutput(self.head(z, key_head), z, aux)
