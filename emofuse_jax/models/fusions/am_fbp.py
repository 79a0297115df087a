"""AM-FBP: an adaptive FBP trunk over the whole clip, and one shared by its equal parts in time.

Reference: arXiv 2111.08910.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.fbp import ADAPTIVE_DEFAULTS, AdaptiveFBP
from emofuse_jax.models.layers.head import Head
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import PRNGKey


class AdaptiveMultiLevelFBP(nnx.Module):
    """`z = [z_global ; mean_n z_n]`, then the classifier.

    A part counts in the mean when it holds a valid position of each modality that the clip has at all.
    With `auxiliary`, each level has a classifier of its own, whose logits go to `aux`.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = ADAPTIVE_DEFAULTS | {"parts": 3, "auxiliary": False}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        if config.parts < 1:
            raise ValueError(f"fusion.parts: {config.parts}, expected at least 1")
        self.global_trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.part_trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.head = Head(2 * config.width, classes, config.head_dropout, rngs=rngs)
        self.auxiliary = config.auxiliary
        if self.auxiliary:
            self.global_head = Head(config.width, classes, config.head_dropout, rngs=rngs)
            self.part_head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from both levels."""
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        modality_mask = jnp.stack([pooled.audio_ok, pooled.video_ok], axis=-1)  # b n 2
        audio, video = pooled.audio, pooled.video
        global_vector, global_weights, gates = self.global_trunk(
            audio[:, :1], video[:, :1], modality_mask[:, :1], keys[0]
        )
        trunk_vectors, trunk_weights, _ = self.part_trunk(
            audio[:, 1:], video[:, 1:], modality_mask[:, 1:], keys[1]
        )
        complete_mask = complete_trunks(modality_mask)
        level_vectors = [global_vector[:, 0], masked_mean(trunk_vectors, complete_mask)]  # each b o
        z = jnp.concatenate(level_vectors, axis=-1)
        aux = {
            "trunks": jnp.concatenate([global_vector, trunk_vectors], axis=1),
            "trunk_weights": jnp.concatenate([global_weights, trunk_weights], axis=1),
            "modality_weights": global_weights[:, 0],
        } | {name: gate[:, 0] for name, gate in gates.items()}  # of the whole clip
        if self.auxiliary:
            level_logits = [
                self.global_head(level_vectors[0], keys[3]),
                self.part_head(level_vectors[1], keys[4]),
            ]
            aux["level_logits"] = jnp.stack(level_logits, axis=1)  # b 2 c
            aux["level_mask"] = jnp.stack([modality_mask[:, 0].any(-1), complete_mask.any(-1)], axis=1)
        return FusionOutput(self.head(z, keys[2]), z, aux)


def complete_trunks(modality_mask: Bool[Array, "b n 2"]) -> Bool[Array, "b parts"]:
    """Parts, index 1 and up, that have something of every modality that the whole clip, index 0, has."""
    clip_mask, trunk_mask = modality_mask[:, :1], modality_mask[:, 1:]
    return jnp.all(trunk_mask | ~clip_mask, axis=-1) & jnp.any(trunk_mask, axis=-1)
