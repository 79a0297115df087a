"""Multimodal bottleneck transformer on the positions of the encoders.

Reference: Nagrani et al., 2021, arXiv 2107.00135.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, FusionOutput
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.models.layers.transformer import TransformerLayer
from emofuse_jax.ops.masking import equal_weights
from emofuse_jax.types import PRNGKey

TIME_FREQUENCY_COUNT = 6
"""Number of frequencies j in `time_encoding`."""
TOKEN_INIT_STD = 0.02
"""Standard deviation of the learned tokens, as in the paper."""

Tokens = Float[Array, "b l w"]
LogitsAndVector = tuple[Float[Array, "b c"], Float[Array, "b w"]]


class ModalityBranch(nnx.Module):
    """Branch of one modality: a learned CLS token before its positions as tokens, its layers, its classifier.

    Raises:
      ValueError: if `config.heads` does not divide `config.width`.
    """

    def __init__(self, d: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.enter = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.project = linear(d, config.width, dtype, rngs=rngs)
        self.place = linear(2 * TIME_FREQUENCY_COUNT, config.width, dtype, rngs=rngs)
        self.first = nnx.Param(TOKEN_INIT_STD * jax.random.normal(rngs.params(), (config.width,)))
        for i in range(config.layers):
            layer = TransformerLayer(
                config.width, config.heads, config.hidden, config.dropout, dtype, rngs=rngs
            )
            setattr(self, f"layer{i + 1}", layer)
        self.norm = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)
        self.dtype = dtype

    def make_tokens(self, sequence: EncodedSequence) -> tuple[Tokens, Bool[Array, "b l"]]:
        """Returns `(tokens, mask)`: CLS, a learned token that is always valid, then one token per position.

        The shapes are [b 1+l w] and [b 1+l] for l positions and the width w = `config.width`; the mask is
        True at valid tokens. `sequence` has the vectors `values` [b l d], their `mask` and `time_index`
        [b l], and the number of time steps `length` [b]. A position's token is a linear map of its vector
        after layer norm, plus a linear map of its time encoding (12 sines and cosines of its relative time).
        """
        values = self.project(self.enter(sequence.values)) + self.place(time_encoding(sequence, self.dtype))
        b, _, w = values.shape
        cls_token = jnp.broadcast_to(self.first[...].astype(self.dtype), (b, 1, w))
        mask = jnp.concatenate([jnp.ones((b, 1), bool), sequence.mask], axis=1)
        return jnp.concatenate([cls_token, values], axis=1), mask

    def classify(self, tokens: Tokens, *, train: bool, key: PRNGKey | None) -> LogitsAndVector:
        """Returns `(logits, vector)`: the logits [b c], and the first token, CLS, after layer norm [b w].

        `vector` is the input of the classifier; dropout before it, with `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, or the dropout rate is not in [0, 1).
        """
        vector = self.norm(tokens[:, 0])
        return self.head(vector, train=train, key=key), vector


class BottleneckTransformer(nnx.Module):
    """Fusion by one transformer per modality that exchange information only through shared tokens.

    From layer `fusion_layer` on, each modality attends over `[its tokens; shared tokens]`, where there are
    `tokens` shared tokens. Their new value is the mean of the results of the modalities that the clip has.
    The logits are the mean of the logits of these modalities.

    Raises:
      ValueError: if `fusion_layer` is not below `layers`, `tokens` is below 1, or `heads` does not divide
        `width`.
    """

    modalities = ("audio", "video")
    takes = "sequences"
    defaults = {
        "width": 256,
        "layers": 4,
        "fusion_layer": 2,
        "heads": 4,
        "hidden": 1024,
        "tokens": 4,
        "dropout": 0.1,
        "head_dropout": 0.0,
    }
    small = {"width": 64, "hidden": 128, "layers": 3, "fusion_layer": 1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if not 0 <= config.fusion_layer < config.layers:
            raise ValueError(
                f"config.model.fusion.fusion_layer: {config.fusion_layer}, expected at least 0 and below"
                f" config.model.fusion.layers={config.layers}"
            )
        if config.tokens < 1:
            raise ValueError(f"config.model.fusion.tokens: {config.tokens}, expected at least 1")
        self.audio = ModalityBranch(d_a, classes, config, dtype, rngs=rngs)
        self.video = ModalityBranch(d_v, classes, config, dtype, rngs=rngs)
        shape = (config.tokens, config.width)
        self.shared = nnx.Param(TOKEN_INIT_STD * jax.random.normal(rngs.params(), shape))
        self.layers, self.fusion_layer, self.shared_count = config.layers, config.fusion_layer, config.tokens
        self.dtype = dtype

    def __call__(self, sequences: EncodedSequences, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the mean logits of the classifiers of the modalities that a clip has.

        Args:
          sequences: `audio` and `video`; each has `values` [b l d] of l positions, `mask` [b l], True at
            valid positions, `time_index` [b l], the time step of each position, and `length` [b], the number
            of steps of each clip.
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b 2w], the CLS tokens of audio and
          video, of width w = `config.width`, side by side; and the dict `aux` with `modality_weights` [b 2]
          of (audio, video): 1/2 each, or 1 for the only modality of a clip, and 0 for an absent one (a clip
          with neither has the mean logits of both); and `bottleneck_audio_attention` and
          `bottleneck_video_attention` [b n l], the attention weights of the n = `config.tokens` shared tokens
          over the l positions of the modality in the last layer, as means over the heads.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        key_count = 2 * (self.layers + 1)
        keys = split_dropout_key(key, key_count, train=train)
        both_sequences = sequences.of_both_modalities()
        modality_mask = jnp.stack([sequence.mask.any(axis=1) for sequence in both_sequences], axis=1)  # b 2
        modality_weights = equal_weights(modality_mask)
        token_mask_pairs = [
            modality_branch.make_tokens(encoded)
            for modality_branch, encoded in zip((self.audio, self.video), both_sequences, strict=True)
        ]
        tokens, masks = (list(field) for field in zip(*token_mask_pairs, strict=True))
        b = modality_mask.shape[0]
        shared = jnp.broadcast_to(self.shared[...].astype(self.dtype), (b, *self.shared.shape))
        for i in range(self.layers):
            layer_keys = keys[2 * i : 2 * i + 2]
            if i < self.fusion_layer:
                tokens = [
                    self._get_layer(m, i)(tokens[m], masks[m], train=train, key=layer_keys[m])[0]
                    for m in range(2)
                ]
            else:
                tokens, shared, attention = self._apply_fusion_layer(
                    i, tokens, masks, shared, modality_weights, train=train, keys=layer_keys
                )
        branch_inputs = zip((self.audio, self.video), tokens, keys[-2:], strict=True)
        logits, vectors = zip(
            *(
                branch.classify(branch_tokens, train=train, key=head_key)
                for branch, branch_tokens, head_key in branch_inputs
            ),
            strict=True,
        )
        aux = {
            "modality_weights": jnp.where(modality_mask, modality_weights, 0.0),
            "bottleneck_audio_attention": attention[0],
            "bottleneck_video_attention": attention[1],
        }
        mean_logits = jnp.einsum("mbc,bm->bc", jnp.stack(logits), modality_weights)
        return FusionOutput(mean_logits, jnp.concatenate(vectors, axis=-1), aux)

    def _get_layer(self, modality: int, i: int) -> TransformerLayer:
        return getattr((self.audio, self.video)[modality], f"layer{i + 1}")

    def _apply_fusion_layer(
        self,
        i: int,
        tokens: Sequence[Float[Array, "b _ w"]],
        masks: Sequence[Bool[Array, "b _"]],
        shared: Float[Array, "b n w"],
        modality_weights: Float[Array, "b 2"],
        *,
        train: bool,
        keys: Sequence[PRNGKey | None],
    ) -> tuple[list[Float[Array, "b _ w"]], Float[Array, "b n w"], list[Float[Array, "b n _"]]]:
        """Applies layer `i` to the tokens of each modality next to the n shared tokens.

        `i` counts all layers, from 0. `tokens`, `masks` and `keys` have two entries, for (audio, video);
        tokens are CLS and the l positions, keys those of the dropout. `modality_weights` is in the same
        order.

        Returns:
          `(tokens, shared, attention)`: lists of the new tokens of (audio, video); the new shared tokens, the
          mean of the results of both modalities by `modality_weights`; and a list with the attention weights
          [b n l] of the shared tokens over the l positions of (audio, video), without CLS, as means over the
          heads.

        Raises:
          ValueError: if the dropout rate is not in [0, 1), or `train` is True but a key is None.
        """
        shared_mask = jnp.ones(shared.shape[:2], bool)
        new_tokens, attention = [], []
        mean_shared = jnp.zeros((), shared.dtype)
        for m in range(2):
            concatenated = jnp.concatenate([tokens[m], shared], axis=1)
            mask = jnp.concatenate([masks[m], shared_mask], axis=1)
            y, weights = self._get_layer(m, i)(concatenated, mask, train=train, key=keys[m])
            new_tokens.append(y[:, : -self.shared_count])
            mean_shared += modality_weights[:, m, None, None].astype(y.dtype) * y[:, -self.shared_count :]
            attention.append(
                weights.mean(axis=1)[:, -self.shared_count :, 1 : -self.shared_count]
            )  # b h l l -> b n l
        return new_tokens, mean_shared, attention


def time_encoding(sequence: EncodedSequence, dtype: DTypeLike) -> Float[Array, "b l e"]:
    """Returns the time encoding of each position: `sin(2^j pi tau)` and `cos(2^j pi tau)` for every j.

    `tau = (time_index + 1/2) / length` is relative time: it works for any number of positions and does not
    depend on padding. A length of 0 counts as 1. j goes from 0 to 5; the e = 12 entries are 6 sines, then 6
    cosines, in `dtype`.
    """
    tau = (sequence.time_index + 0.5) / jnp.maximum(sequence.length, 1)[:, None]  # b l
    angles = jnp.pi * tau[..., None] * 2.0 ** jnp.arange(TIME_FREQUENCY_COUNT)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(dtype)
