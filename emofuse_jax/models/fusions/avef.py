"""AVEF: a deep network on the vectors of a 2-D CNN over sound and a 3-D CNN over faces."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.types import PRNGKey


class DeepFusion(nnx.Module):
    """`z_i = relu(W_i z_{i-1} + b_i)` from `z_0 = [h_a; h_v]`, with dropout, then the classifier.

    `layer_norm` of each vector is a design choice: without it the stream with the larger numbers is learned
    and the other is not.

    Reference: Ma et al., Audio-visual emotion fusion (AVEF), Information Fusion 46, 2019, whose deep belief
    network is here a perceptron of the widths `hidden`, trained by back-propagation alone.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"hidden": (512, 256), "layer_norm": True, "dropout": 0.3, "head_dropout": 0.3}
    small = {"hidden": (64, 64)}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.has_layer_norm = config.layer_norm
        if self.has_layer_norm:
            self.audio_norm = nnx.LayerNorm(d_a, dtype=dtype, rngs=rngs)
            self.video_norm = nnx.LayerNorm(d_v, dtype=dtype, rngs=rngs)
        widths = (d_a + d_v, *config.hidden)
        for i, (in_features, out_features) in enumerate(itertools.pairwise(widths), 1):
            setattr(self, f"hidden{i}", linear(in_features, out_features, dtype, rngs=rngs))
        self.depth, self.dropout = len(config.hidden), config.dropout
        self.head = Head(widths[-1], classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the last hidden layer; an absent vector is zero."""
        keys = [None] * (self.depth + 1) if key is None else jax.random.split(key, self.depth + 1)
        z = jnp.concatenate(
            [self._normalize_vector(pooled, modality) for modality in self.modalities], axis=-1
        )
        for i in range(1, self.depth + 1):
            z = dropout(jax.nn.relu(getattr(self, f"hidden{i}")(z)), self.dropout, keys[i])
        return FusionOutput(self.head(z, keys[0]), z, {})

    def _normalize_vector(self, pooled: PooledVectors, modality: str) -> Float[Array, "b d"]:
        """A stream's vector, normalised; zero where a clip lacks the stream."""
        vector, is_present = getattr(pooled, modality)[:, 0], getattr(pooled, f"{modality}_ok")[:, :1]
        return (
            jnp.where(is_present, getattr(self, f"{modality}_norm")(vector), 0.0)
            if self.has_layer_norm
            else vector
        )
