"""AM-FBP: an adaptive FBP trunk over the whole clip, and one shared by its equal parts in time (P2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from emofuse_jax.models.interfaces import Fused, Streams
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

    def __call__(self, streams: Streams, key: PRNGKey | None) -> Fused:
        """Logits from both levels."""
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        ok = jnp.stack([streams.audio_ok, streams.video_ok], axis=-1)  # b n 2
        audio, video = streams.audio, streams.video
        whole, whole_weights, gates = self.global_trunk(audio[:, :1], video[:, :1], ok[:, :1], keys[0])
        parts, part_weights, _ = self.part_trunk(audio[:, 1:], video[:, 1:], ok[:, 1:], keys[1])
        counted = complete_parts(ok)
        levels = [whole[:, 0], masked_mean(parts, counted)]  # each b o
        z = jnp.concatenate(levels, axis=-1)
        aux = {
            "trunks": jnp.concatenate([whole, parts], axis=1),
            "trunk_weights": jnp.concatenate([whole_weights, part_weights], axis=1),
            "modality_weights": whole_weights[:, 0],
        } | {name: gate[:, 0] for name, gate in gates.items()}  # of the whole clip
        if self.auxiliary:
            logits = [self.global_head(levels[0], keys[3]), self.part_head(levels[1], keys[4])]
            aux["level_logits"] = jnp.stack(logits, axis=1)  # b 2 c
            aux["level_mask"] = jnp.stack([ok[:, 0].any(-1), counted.any(-1)], axis=1)
        return Fused(self.head(z, keys[2]), z, aux)


def complete_parts(ok: Bool[Array, "b n 2"]) -> Bool[Array, "b parts"]:
    """Parts, index 1 and up, that have something of every modality that the whole clip, index 0, has."""
    whole, parts = ok[:, :1], ok[:, 1:]
    return jnp.all(parts | ~whole, axis=-1) & jnp.any(parts, axis=-1)
