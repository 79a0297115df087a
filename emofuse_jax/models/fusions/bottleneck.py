"""Multimodal bottleneck transformer over the encoders' positions (Nagrani et al., arXiv 2107.00135)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import Fused, Sequence, Sequences
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.models.layers.transformer import TransformerLayer
from emofuse_jax.ops.masking import present_weights
from emofuse_jax.types import PRNGKey

FREQUENCIES = 6
INITIAL = 0.02
"""Standard deviation of the learned tokens, as in the paper."""

Tokens = Float[Array, "b l w"]
Answer = tuple[Float[Array, "b c"], Float[Array, "b w"]]


class Stream(nnx.Module):
    """One modality: its positions as tokens behind a token of its own (CLS), its layers, its classifier."""

    def __init__(self, d: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.enter = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.project = linear(d, config.width, dtype, rngs=rngs)
        self.place = linear(2 * FREQUENCIES, config.width, dtype, rngs=rngs)
        self.first = nnx.Param(INITIAL * jax.random.normal(rngs.params(), (config.width,)))
        for i in range(config.layers):
            layer = TransformerLayer(
                config.width, config.heads, config.hidden, config.dropout, dtype, rngs=rngs
            )
            setattr(self, f"layer{i + 1}", layer)
        self.norm = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)
        self.dtype = dtype

    def tokens(self, sequence: Sequence) -> tuple[Tokens, Bool[Array, "b l"]]:
        """CLS and the positions, with what their place in time says; CLS is always valid."""
        values = self.project(self.enter(sequence.values)) + self.place(time_features(sequence, self.dtype))
        b, _, w = values.shape
        first = jnp.broadcast_to(self.first[...].astype(self.dtype), (b, 1, w))
        mask = jnp.concatenate([jnp.ones((b, 1), bool), sequence.mask], axis=1)
        return jnp.concatenate([first, values], axis=1), mask

    def answer(self, tokens: Tokens, key: PRNGKey | None) -> Answer:
        """Logits from CLS, and what they were made from."""
        vector = self.norm(tokens[:, 0])
        return self.head(vector, key), vector


class BottleneckTransformer(nnx.Module):
    """Per-modality layers; from `fusion_layer` on they exchange through `tokens` shared tokens alone.

    In such a layer each modality attends over `[its tokens; shared]`, and the shared tokens go on as the mean
    of what the modalities that the clip has made of them. The logits are the mean of those modalities' own.
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

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        if not 0 <= config.fusion_layer < config.layers:
            raise ValueError(
                f"fusion.fusion_layer: {config.fusion_layer}, expected at least 0 and below"
                f" fusion.layers={config.layers}"
            )
        if config.tokens < 1:
            raise ValueError(f"fusion.tokens: {config.tokens}, expected at least 1")
        self.audio = Stream(d_a, classes, config, dtype, rngs=rngs)
        self.video = Stream(d_v, classes, config, dtype, rngs=rngs)
        shape = (config.tokens, config.width)
        self.shared = nnx.Param(INITIAL * jax.random.normal(rngs.params(), shape))
        self.layers, self.fusion_layer, self.count = config.layers, config.fusion_layer, config.tokens
        self.dtype = dtype

    def __call__(self, sequences: Sequences, key: PRNGKey | None) -> Fused:
        """Logits of both classifiers' mean; the shared tokens' attention over positions goes to `aux`."""
        steps = 2 * (self.layers + 1)
        keys = [None] * steps if key is None else list(jax.random.split(key, steps))
        ok = jnp.stack([sequence.mask.any(axis=1) for sequence in sequences], axis=1)  # b 2
        share = present_weights(ok)
        pairs = [s.tokens(q) for s, q in zip((self.audio, self.video), sequences, strict=True)]
        tokens, masks = (list(field) for field in zip(*pairs, strict=True))
        b = ok.shape[0]
        shared = jnp.broadcast_to(self.shared[...].astype(self.dtype), (b, *self.shared.shape))
        for i in range(self.layers):
            own = keys[2 * i : 2 * i + 2]
            if i < self.fusion_layer:
                tokens = [self._layer(m, i)(tokens[m], masks[m], own[m])[0] for m in range(2)]
            else:
                tokens, shared, attention = self._exchange(i, tokens, masks, shared, share, own)
        streams = zip((self.audio, self.video), tokens, keys[-2:], strict=True)
        logits, vectors = zip(*(stream.answer(*given) for stream, *given in streams), strict=True)
        aux = {
            "modality_weights": jnp.where(ok, share, 0.0),
            "bottleneck_audio_attention": attention[0],
            "bottleneck_video_attention": attention[1],
        }
        mean = jnp.einsum("mbc,bm->bc", jnp.stack(logits), share)
        return Fused(mean, jnp.concatenate(vectors, axis=-1), aux)

    def _layer(self, modality: int, i: int) -> TransformerLayer:
        return getattr((self.audio, self.video)[modality], f"layer{i + 1}")

    def _exchange(self, i, tokens, masks, shared, share, keys):
        """One layer with the shared tokens: new tokens, their mean, and attention over positions [b n l]."""
        seen = jnp.ones(shared.shape[:2], bool)
        new, mixed, attention = [], 0.0, []
        for m in range(2):
            both = jnp.concatenate([tokens[m], shared], axis=1)
            mask = jnp.concatenate([masks[m], seen], axis=1)
            y, weights = self._layer(m, i)(both, mask, keys[m])
            new.append(y[:, : -self.count])
            mixed += share[:, m, None, None].astype(y.dtype) * y[:, -self.count :]
            attention.append(weights.mean(axis=1)[:, -self.count :, 1 : -self.count])  # b h l l -> b n l
        return new, mixed, attention


def time_features(sequence: Sequence, dtype) -> Float[Array, "b l e"]:
    """`sin(2^j pi tau)` and `cos(2^j pi tau)` of the place in time, `tau = (order + 1/2) / length`.

    Relative time suits any number of positions, and padding does not move it.
    """
    tau = (sequence.order + 0.5) / jnp.maximum(sequence.length, 1)[:, None]  # b l
    angles = jnp.pi * tau[..., None] * 2.0 ** jnp.arange(FREQUENCIES)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(dtype)
