"""Attention pooling of a sequence as modules: `(values, masks) -> vectors, weights`, for several masks.

The equations are in ops/attention.py. `width` of a module is the width of its pooled vectors.
"""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops import attention

PooledWithWeights = tuple[Float[Array, "b n e"], Float[Array, "b n l"]]
"""One pooled vector for each of the n masks, and its weights over the l positions."""

PoolFunction = Callable[..., PooledWithWeights]
"""Function `(values, scores, mask, *, temperature) -> (vectors, weights)`, such as `attention_pool`."""


@runtime_checkable
class AttentionModule(Protocol):
    """Attention pooling of a sequence."""

    width: int
    """Width of its pooled vectors."""

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Returns `(vectors, weights)`: pooled vectors [b n e], one for each mask, and their weights [b n l].

        `values` has l positions of width d, `masks` is True at valid ones. The width e is `width` of the
        module. The weights are in at least float32; both are zero for a mask without a valid position. Raises
        ValueError if `values` and `masks` have different numbers of positions.
        """


class AdditiveAttention(nnx.Module):
    """Additive attention: `e_i = u^T tanh(W a_i + b)`, `alpha = softmax(lambda e)`.

    `pool` makes the pooled vector from values and scores: `attention_pool` gives the weighted mean (`vectors`
    is 1), `statistics_pool` the mean and the standard deviation (`vectors` is 2; Okabe et al., 2018, arXiv
    1803.10963). Reference: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889).
    """

    def __init__(
        self,
        width: int,
        config: ConfigDict,
        dtype: DTypeLike,
        *,
        pool: PoolFunction = attention.attention_pool,
        vectors: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        self.hidden = linear(width, config.attention_width, dtype, rngs=rngs)
        self.score = linear(config.attention_width, 1, jnp.float32, bias=False, rngs=rngs)
        self.temperature, self.pool = config.temperature, pool
        self.width = vectors * width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Returns `(vectors, weights)`: pooled vectors [b n e], one for each mask, and their weights [b n l].

        `values` has l positions of width d, `masks` is True at valid ones. The width e is d for the weighted
        mean, 2 d with the standard deviation. The weights are in at least float32; both are zero for a mask
        without a valid position. Raises ValueError if `values` and `masks` have different numbers of
        positions.
        """
        scores = self.score(jnp.tanh(self.hidden(values)))[..., 0]  # b l
        return self.pool(values[:, None], scores[:, None], masks, temperature=self.temperature)


class SelfFrameAttention(nnx.Module):
    """Self-attention of frames: `alpha_i = sigmoid(f_i^T q0)`, divided by its sum.

    Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).
    """

    def __init__(self, width: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.q0 = _init_query(width, rngs)
        self.width = width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Returns `(vectors, weights)`: pooled vectors [b n e], one for each mask, and their weights [b n l].

        `values` has l positions of width d, `masks` is True at valid ones. The width e is d. The weights are
        in at least float32; both are zero for a mask without a valid position. Raises ValueError if `values`
        and `masks` have different numbers of positions.
        """
        return attention.self_frame_attention(values[:, None], self.q0[...], masks)


class RelationFrameAttention(nnx.Module):
    """Self-attention, then weights from each frame next to the clip vector; the output is twice as wide.

    Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).
    """

    def __init__(self, width: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.q0 = _init_query(width, rngs)
        self.q1 = _init_query(2 * width, rngs)
        self.width = 2 * width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Returns `(vectors, weights)`: pooled vectors [b n e], one for each mask, and their weights [b n l].

        `values` has l positions of width d, `masks` is True at valid ones. The width e is 2 d. The weights
        are in at least float32; both are zero for a mask without a valid position. Raises ValueError if
        `values` and `masks` have different numbers of positions.
        """
        return attention.relation_frame_attention(values[:, None], self.q0[...], self.q1[...], masks)


class TransformerFrameAttention(nnx.Module):
    """Attention by the similarity of all pairs of frames, after a linear reduction to `attention_width`.

    Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).
    """

    def __init__(self, width: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.query = linear(width, config.attention_width, dtype, bias=False, rngs=rngs)
        self.key = linear(width, config.attention_width, dtype, bias=False, rngs=rngs)
        self.width = width

    def __call__(self, values: Float[Array, "b l d"], masks: Bool[Array, "b n l"]) -> PooledWithWeights:
        """Returns `(vectors, weights)`: pooled vectors [b n e], one for each mask, and their weights [b n l].

        `values` has l positions of width d, `masks` is True at valid ones. The width e is d. The weights are
        in at least float32; both are zero for a mask without a valid position. Raises ValueError if `values`
        and `masks` have different numbers of positions.
        """
        query, key = self.query(values), self.key(values)
        return attention.transformer_frame_attention(values[:, None], query[:, None], key[:, None], masks)


ATTENTION_DEFAULTS = {"attention": "additive", "attention_width": 256, "temperature": 0.3}
"""Config fields of the attention that pools an encoder's positions (one of ATTENTION_TYPES), with defaults.
`temperature` is the papers' lambda. `small` of an encoder may change these fields too."""
ATTENTION_TYPES: dict[str, Callable[..., AttentionModule]] = {
    "additive": AdditiveAttention,
    "statistics": functools.partial(AdditiveAttention, pool=attention.statistics_pool, vectors=2),
    "self": SelfFrameAttention,
    "relation": RelationFrameAttention,
    "transformer": TransformerFrameAttention,
}
"""Attention modules by the name in `config.model.<modality>.attention`."""


def make_attention(
    name: str, width: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
) -> AttentionModule:
    """Builds the attention module that `config.attention` names.

    The names are additive, statistics, self, relation and transformer. Called with values [b l d] of l
    positions and n masks [b n l], True at the positions to pool, the module returns pooled vectors [b n e]
    and weights [b n l]; its attribute `width` is e.

    Args:
      name: modality ("audio" or "video"), for the error message.
      width: width d of the positions.
      config: config of the modality: `attention`; `attention_width`, the width of the hidden layer (additive,
        statistics, transformer); and `temperature`, a factor on the scores (additive, statistics).
      dtype: dtype of the activations.
      rngs: random keys of the initial parameters.

    Raises:
      ValueError: if `config.attention` is unknown.
      ZeroDivisionError: if `width` or an `attention_width` that is used is 0.
    """
    if config.attention not in ATTENTION_TYPES:
        raise ValueError(
            f"config.model.{name}.attention: {config.attention!r}, expected one of"
            f" {', '.join(ATTENTION_TYPES)}"
        )
    return ATTENTION_TYPES[config.attention](width, config, dtype, rngs=rngs)


def _init_query(width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(scaled_uniform(1.0)(rngs.params(), (width, 1))[:, 0])
