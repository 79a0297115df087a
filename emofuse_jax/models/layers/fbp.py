"""Factorised bilinear pooling as modules: plain, and guided by adaptive weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.masking import masked_softmax
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import PRNGKey

FBP_DEFAULTS = {
    "width": 128,
    "factors": 4,
    "dropout": 0.3,
    "dropout_place": "products",
    "power_norm": False,
    "scale": 8.0,
    "head_dropout": 0.0,
}
"""`dropout_place` is that of `dropout`: `products` or `pooled`; `head_dropout` acts after the norm. `scale`
is the norm of a fused vector (a design choice; 1 is the papers' letter)."""

ADAPTIVE_DEFAULTS = FBP_DEFAULTS | {"gates": "scalar", "gate_width": 128, "first_bias": 0.1}
"""`gates` are `scalar` or `vector`; the biases of FBP start at `first_bias` (a design choice). At 1 the sum
of the streams outweighs their product at first, and training can stay at what a sum can tell."""

GatedVectors = tuple[Float[Array, "*n d_a"], Float[Array, "*n d_v"], Float[Array, "*n 2"], dict[str, Array]]
"""Weighted vectors, the weights of (audio, video), and the gates by name where they are vectors."""


def make_factors(d_a: int, d_v: int, columns: int, *, rngs: nnx.Rngs) -> tuple[nnx.Param, nnx.Param]:
    """Fresh U [d_a columns] and V [d_v columns]."""
    init = scaled_uniform(1.0)
    return tuple(nnx.Param(init(rngs.params(), (d, columns))) for d in (d_a, d_v))


class FBP(nnx.Module):
    """U and V of FBP, and biases where `bias`, without which the L2 norm cancels scalar weights.

    The fused vector is multiplied by `config.scale`: entries of about 1 / sqrt(o) would give a
    classifier under Adam small steps.
    """

    def __init__(self, d_a: int, d_v: int, config, *, bias: bool, rngs: nnx.Rngs):
        columns = config.width * config.factors
        self.u, self.v = make_factors(d_a, d_v, columns, rngs=rngs)
        self.has_bias = bias
        if bias:
            self.bias_u, self.bias_v = (nnx.Param(jnp.full(columns, config.first_bias)) for _ in range(2))
        self.factors, self.dropout, self.dropout_place = config.factors, config.dropout, config.dropout_place
        self.power_norm, self.scale = config.power_norm, config.scale

    def __call__(
        self, audio: Float[Array, "*n d_a"], video: Float[Array, "*n d_v"], key: PRNGKey | None
    ) -> Float[Array, "*n o"]:
        """The fused vectors, of norm `scale`."""
        return self.scale * factorized_bilinear_pooling(
            audio,
            video,
            self.u[...],
            self.v[...],
            factors=self.factors,
            bias_u=self.bias_u[...] if self.has_bias else None,
            bias_v=self.bias_v[...] if self.has_bias else None,
            dropout_rate=self.dropout,
            key=key,
            power_norm=self.power_norm,
            dropout_place=self.dropout_place,
        )


class ScalarGates(nnx.Module):
    """`s_m = w_m^T tanh(W_m h_m + b_m)`, `beta = softmax([s_a, s_v])`, `h_m' = beta_m h_m`."""

    def __init__(self, d_a: int, d_v: int, config, dtype, *, rngs: nnx.Rngs):
        for name, width in (("audio", d_a), ("video", d_v)):
            hidden = linear(width, config.gate_width, dtype, rngs=rngs)
            score = linear(config.gate_width, 1, jnp.float32, bias=False, rngs=rngs)
            setattr(self, f"{name}_hidden", hidden)
            setattr(self, f"{name}_score", score)

    def __call__(
        self, audio: Float[Array, "*n d_a"], video: Float[Array, "*n d_v"], modality_mask: Bool[Array, "*n 2"]
    ) -> GatedVectors:
        """Weighted vectors and the weights (audio, video); an absent modality has weight 0."""
        s_a = self.audio_score(jnp.tanh(self.audio_hidden(audio)))
        s_v = self.video_score(jnp.tanh(self.video_hidden(video)))
        beta = masked_softmax(jnp.concatenate([s_a, s_v], axis=-1), modality_mask)  # ... 2
        return audio * beta[..., :1].astype(audio.dtype), video * beta[..., 1:].astype(video.dtype), beta, {}


class VectorGates(nnx.Module):
    """`gate_m = sigmoid(W_m [h_a; h_v] + b_m)`, `h_m' = gate_m o h_m`."""

    def __init__(self, d_a: int, d_v: int, config, dtype, *, rngs: nnx.Rngs):
        self.audio_gate = linear(d_a + d_v, d_a, dtype, rngs=rngs)
        self.video_gate = linear(d_a + d_v, d_v, dtype, rngs=rngs)

    def __call__(
        self, audio: Float[Array, "*n d_a"], video: Float[Array, "*n d_v"], modality_mask: Bool[Array, "*n 2"]
    ) -> GatedVectors:
        """Gated vectors, and the mean gates divided by their sum; an absent modality has weight 0."""
        concatenated = jnp.concatenate([audio, video], axis=-1)
        gates = {
            "audio_gate": jax.nn.sigmoid(self.audio_gate(concatenated)),
            "video_gate": jax.nn.sigmoid(self.video_gate(concatenated)),
        }
        mean_gates = jnp.stack(
            [at_least_float32(gate).mean(axis=-1) for gate in gates.values()], axis=-1
        )  # ... 2
        mean_gates = jnp.where(modality_mask, mean_gates, 0.0)
        total = mean_gates.sum(axis=-1, keepdims=True)
        weights = mean_gates / jnp.where(total > 0, total, 1.0)
        return audio * gates["audio_gate"], video * gates["video_gate"], weights, gates


GATE_TYPES = {"scalar": ScalarGates, "vector": VectorGates}


class AdaptiveFBP(nnx.Module):
    """FBP of gated vectors: `(U^T h_a' + b_U) o (V^T h_v' + b_V)`, pooled and normalised.

    Reference: AM-FBP, arXiv 2111.08910.
    """

    def __init__(self, d_a: int, d_v: int, config, dtype, *, rngs: nnx.Rngs):
        if config.gates not in GATE_TYPES:
            raise ValueError(f"fusion.gates: {config.gates!r}, expected one of {', '.join(GATE_TYPES)}")
        self.gates = GATE_TYPES[config.gates](d_a, d_v, config, dtype, rngs=rngs)
        self.fbp = FBP(d_a, d_v, config, bias=True, rngs=rngs)

    def __call__(
        self,
        audio: Float[Array, "*n d_a"],
        video: Float[Array, "*n d_v"],
        modality_mask: Bool[Array, "*n 2"],
        key: PRNGKey | None,
    ) -> tuple[Float[Array, "*n o"], Float[Array, "*n 2"], dict[str, Array]]:
        """Fused vectors, the modality weights, and vector gates by name."""
        audio, video, weights, gates = self.gates(audio, video, modality_mask)
        return self.fbp(audio, video, key), weights, gates
