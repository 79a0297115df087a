"""Attention over a sequence, as modules: `(values, masks) -> vectors, weights` for several masks at once."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops import attention

PooledWithWeights = tuple[Float[Array, "b n e"], Float[Array, "b n l"]]


class AdditiveAttention(nnx.Module):
    """`e_i = u^T tanh(W a_i + b)`, `alpha = softmax(lambda e)` (Deep Fusion, arXiv 1901.04889).

    `pool` makes `vectors` vectors of the values and the scores: their mean under the weights, or mean and
    deviation (arXiv 1803.10963).
    """

    def __init__(
        self, width: int, config, dtype, *, pool=attention.attention_pool, vectors=1, rngs: nnx.Rngs
    ):
        self.hidden = linear(width, config.attention_width, dtype, rngs=rngs)
        self.score = linear(config.attention_width, 1, jnp.float32, bias=False, rngs=rngs)
        self.temperature, self.pool = config.temperature, pool
        self.width = vectors * width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Pools under each mask."""
        scores = self.score(jnp.tanh(self.hidden(values)))[..., 0]  # b l
        return self.pool(values[:, None], scores[:, None], masks, temperature=self.temperature)


class SelfFrameAttention(nnx.Module):
    """`alpha_i = sigmoid(f_i^T q0)`, normalised by its sum (AM-FBP, arXiv 2111.08910)."""

    def __init__(self, width: int, config, dtype, *, rngs: nnx.Rngs):
        self.q0 = _init_query(width, rngs)
        self.width = width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Pools under each mask."""
        return attention.self_frame_attention(values[:, None], self.q0[...], masks)


class RelationFrameAttention(nnx.Module):
    """Self-attention, then weights of each frame beside the whole; twice as wide.

    Reference: AM-FBP, arXiv 2111.08910.
    """

    def __init__(self, width: int, config, dtype, *, rngs: nnx.Rngs):
        self.q0 = _init_query(width, rngs)
        self.q1 = _init_query(2 * width, rngs)
        self.width = 2 * width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Pools under each mask."""
        return attention.relation_frame_attention(values[:, None], self.q0[...], self.q1[...], masks)


class TransformerFrameAttention(nnx.Module):
    """Similarity of all pairs after a linear reduction to `attention_width` (AM-FBP, arXiv 2111.08910)."""

    def __init__(self, width: int, config, dtype, *, rngs: nnx.Rngs):
        self.query = linear(width, config.attention_width, dtype, bias=False, rngs=rngs)
        self.key = linear(width, config.attention_width, dtype, bias=False, rngs=rngs)
        self.width = width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Pools under each mask."""
        query, key = self.query(values), self.key(values)
        return attention.transformer_frame_attention(values[:, None], query[:, None], key[:, None], masks)


ATTENTION_TYPES = {
    "additive": AdditiveAttention,
    "statistics": functools.partial(AdditiveAttention, pool=attention.statistics_pool, vectors=2),
    "self": SelfFrameAttention,
    "relation": RelationFrameAttention,
    "transformer": TransformerFrameAttention,
}


def make_attention(name: str, width: int, config, dtype, *, rngs: nnx.Rngs) -> nnx.Module:
    """The attention that `config.attention` of the model's part `name` asks for; ValueError if unknown."""
    if config.attention not in ATTENTION_TYPES:
        raise ValueError(
            f"{name}.attention: {config.attention!r}, expected one of {', '.join(ATTENTION_TYPES)}"
        )
    return ATTENTION_TYPES[config.attention](width, config, dtype, rngs=rngs)


def _init_query(width, rngs):
    return nnx.Param(scaled_uniform(1.0)(rngs.params(), (width, 1))[:, 0])
