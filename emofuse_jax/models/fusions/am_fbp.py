"""AM-FBP: an adaptive FBP trunk for the entire clip, and one that is shared by its equal parts in time.

Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.fbp import ADAPTIVE_DEFAULTS, AdaptiveFBP
from emofuse_jax.models.layers.head import Head
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import PRNGKey


class AdaptiveMultiLevelFBP(nnx.Module):
    """Fusion `z = [z_global ; mean_n z_n]` over the clip and its parts n, then the classifier.

    A part counts in the mean if it contains a valid position of every modality that the clip has. With
    `config.auxiliary`, each of the two levels also has a separate classifier, for the objective `levels`.

    Raises:
      ValueError: if `config.parts` is below 1, or `config.gates` is unknown.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = ADAPTIVE_DEFAULTS | {"parts": 3, "auxiliary": False}
    small = {"dropout": 0.1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if config.parts < 1:
            raise ValueError(f"config.model.fusion.parts: {config.parts}, expected at least 1")
        self.global_trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.part_trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.head = Head(2 * config.width, classes, config.head_dropout, rngs=rngs)
        self.auxiliary = config.auxiliary
        if self.auxiliary:
            self.global_head = Head(config.width, classes, config.head_dropout, rngs=rngs)
            self.part_head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Fuses the vectors of the entire clip and of its parts, and computes the logits from both levels.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 and of
            its parts after it (n = 1 + `config.parts`); and their masks `audio_mask` and `video_mask` [b n],
            False where the modality is absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b 2o], the fused vector of the entire
          clip, of width o = `config.width`, and the mean of those of its complete parts, side by side; and
          the dict `aux` with `trunks` [b n o] and `trunk_weights` [b n 2], the fused vectors and the weights
          of (audio, video) of the entire clip and its parts; `modality_weights` [b 2], the weights of the
          entire clip; if `config.gates` is "vector", its gates `audio_gate` [b d_a] and `video_gate` [b d_v],
          between 0 and 1; and with `config.auxiliary` the `level_logits` [b 2 c] of (clip, mean of parts) and
          `level_mask` [b 2], False for a level without input. A part is complete if it has every modality
          that the clip has; without a complete part, the mean is 0. The weight of an absent modality is 0;
          the others have the sum 1.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), `dropout_place`
            is unknown, or the network has no encoder of one of the modalities.
        """
        keys = split_dropout_key(key, 5, train=train)
        audio, audio_mask, video, video_mask = pooled.of_both_modalities()
        modality_mask = jnp.stack([audio_mask, video_mask], axis=-1)  # b n 2
        global_vector, global_weights, gates = self.global_trunk(
            audio[:, :1], video[:, :1], modality_mask[:, :1], train=train, key=keys[0]
        )
        trunk_vectors, trunk_weights, _ = self.part_trunk(
            audio[:, 1:], video[:, 1:], modality_mask[:, 1:], train=train, key=keys[1]
        )
        complete_mask = complete_trunks(modality_mask)
        level_vectors = [global_vector[:, 0], masked_mean(trunk_vectors, complete_mask)]  # each b o
        z = jnp.concatenate(level_vectors, axis=-1)
        aux = {
            "trunks": jnp.concatenate([global_vector, trunk_vectors], axis=1),
            "trunk_weights": jnp.concatenate([global_weights, trunk_weights], axis=1),
            "modality_weights": global_weights[:, 0],
        } | {name: gate[:, 0] for name, gate in gates.items()}  # of the entire clip
        if self.auxiliary:
            level_logits = [
                self.global_head(level_vectors[0], train=train, key=keys[3]),
                self.part_head(level_vectors[1], train=train, key=keys[4]),
            ]
            aux["level_logits"] = jnp.stack(level_logits, axis=1)  # b 2 c
            aux["level_mask"] = jnp.stack([modality_mask[:, 0].any(-1), complete_mask.any(-1)], axis=1)
        return FusionOutput(self.head(z, train=train, key=keys[2]), z, aux)

    @staticmethod
    def count_trunks(config: ConfigDict) -> int:
        """Returns `config.parts`, the number of equal parts in time; `config` is `config.model.fusion`."""
        return config.parts


def complete_trunks(modality_mask: Bool[Array, "b n 2"]) -> Bool[Array, "b parts"]:
    """Returns the mask of parts that have every modality of the entire clip.

    `modality_mask` says for the entire clip (index 0) and each part (from index 1) whether it has audio and
    video. Parts without any modality are False.
    """
    clip_mask, trunk_mask = modality_mask[:, :1], modality_mask[:, 1:]
    return jnp.all(trunk_mask | ~clip_mask, axis=-1) & jnp.any(trunk_mask, axis=-1)
