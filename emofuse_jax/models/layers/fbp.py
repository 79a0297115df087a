"""Factorised bilinear pooling as modules: plain, and with adaptive weights of the modalities."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.layers.dropout_keys import dropout_key
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
"""Default config fields of FBP.

`dropout` acts on the `products` or on the `pooled` sums, as `dropout_place` says; `head_dropout` acts after
the norm. `scale` is the norm of a fused vector (a design choice; it is 1 in the papers).
"""

ADAPTIVE_DEFAULTS = FBP_DEFAULTS | {"gates": "scalar", "gate_width": 128, "first_bias": 0.1}
"""Default config fields of adaptive FBP.

`gates` is `scalar` or `vector`. `first_bias` is the initial value of the biases of FBP (a design choice): at
1, the sum of the streams dominates their product at first, and training can remain in a solution that only
uses the sum.
"""

GatedVectors = tuple[Float[Array, "*n d_a"], Float[Array, "*n d_v"], Float[Array, "*n 2"], dict[str, Array]]
"""Weighted audio and video vectors, the weights of (audio, video), and vector gates by name."""


def make_factors(
    d_a: int, d_v: int, columns: int, *, rngs: nnx.Rngs
) -> tuple[nnx.Param[Array], nnx.Param[Array]]:
    """Returns new parameters `(U, V)` of shapes [d_a columns] and [d_v columns] with random initial values.

    The values are uniform with variance 1 / d_a and 1 / d_v. Raises ZeroDivisionError if `d_a`, `d_v` or
    `columns` is 0.
    """
    init = scaled_uniform(1.0)
    u = nnx.Param(init(rngs.params(), (d_a, columns)))
    return u, nnx.Param(init(rngs.params(), (d_v, columns)))


class FBP(nnx.Module):
    """Factorised bilinear pooling with learned U and V, and with biases if `bias`.

    Without biases the L2 norm cancels scalar weights of the inputs. The fused vector is multiplied by
    `config.scale`: with entries of about 1 / sqrt(o), a classifier trained by Adam would take too small
    steps. Calling it raises ValueError if `config.dropout_place` is unknown or `config.dropout` is
    outside [0, 1).
    """

    def __init__(self, d_a: int, d_v: int, config: ConfigDict, *, bias: bool, rngs: nnx.Rngs) -> None:
        columns = config.width * config.factors
        self.u, self.v = make_factors(d_a, d_v, columns, rngs=rngs)
        self.has_bias = bias
        if bias:
            self.bias_u, self.bias_v = (nnx.Param(jnp.full(columns, config.first_bias)) for _ in range(2))
        self.factors, self.dropout, self.dropout_place = config.factors, config.dropout, config.dropout_place
        self.power_norm, self.scale = config.power_norm, config.scale

    def __call__(
        self,
        audio: Float[Array, "*n d_a"],
        video: Float[Array, "*n d_v"],
        *,
        train: bool,
        key: PRNGKey | None,
    ) -> Float[Array, "*n o"]:
        """Fuses the vectors; returns vectors of width o = `config.width` with L2 norm `config.scale`.

        Dropout, with `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, `config.dropout_place` is unknown,
        `config.dropout` is not in [0, 1), or the vectors do not have the widths d_a and d_v of the module;
        TypeError if their leading axes differ.
        """
        return self.scale * factorized_bilinear_pooling(
            audio,
            video,
            self.u[...],
            self.v[...],
            factors=self.factors,
            bias_u=self.bias_u[...] if self.has_bias else None,
            bias_v=self.bias_v[...] if self.has_bias else None,
            dropout_rate=self.dropout,
            key=dropout_key(key, train=train),
            power_norm=self.power_norm,
            dropout_place=self.dropout_place,
        )


class ScalarGates(nnx.Module):
    """One weight for each modality of a clip.

    `s_m = w_m^T tanh(W_m h_m + b_m)`, `beta = softmax([s_a, s_v])`, `h_m' = beta_m h_m`.
    """

    def __init__(self, d_a: int, d_v: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.audio_hidden = linear(d_a, config.gate_width, dtype, rngs=rngs)
        self.audio_score = linear(config.gate_width, 1, jnp.float32, bias=False, rngs=rngs)
        self.video_hidden = linear(d_v, config.gate_width, dtype, rngs=rngs)
        self.video_score = linear(config.gate_width, 1, jnp.float32, bias=False, rngs=rngs)

    def __call__(
        self, audio: Float[Array, "*n d_a"], video: Float[Array, "*n d_v"], modality_mask: Bool[Array, "*n 2"]
    ) -> GatedVectors:
        """Returns `(audio, video, weights, gates)`: vectors times their weights, the weights, an empty dict.

        `modality_mask` is True for the modalities (audio, video) that a clip has. The weights [.. 2] of
        (audio, video) are in at least float32 and have the sum 1; an absent modality has weight 0, so both
        are 0 if both are absent.
        """
        s_a = self.audio_score(jnp.tanh(self.audio_hidden(audio)))
        s_v = self.video_score(jnp.tanh(self.video_hidden(video)))
        beta = masked_softmax(jnp.concatenate([s_a, s_v], axis=-1), modality_mask)  # ... 2
        return audio * beta[..., :1].astype(audio.dtype), video * beta[..., 1:].astype(video.dtype), beta, {}


class VectorGates(nnx.Module):
    """One gate for each entry of a vector.

    `gate_m = sigmoid(W_m [h_a; h_v] + b_m)`, `h_m' = gate_m o h_m`.
    """

    def __init__(self, d_a: int, d_v: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.audio_gate = linear(d_a + d_v, d_a, dtype, rngs=rngs)
        self.video_gate = linear(d_a + d_v, d_v, dtype, rngs=rngs)

    def __call__(
        self, audio: Float[Array, "*n d_a"], video: Float[Array, "*n d_v"], modality_mask: Bool[Array, "*n 2"]
    ) -> GatedVectors:
        """Returns `(audio, video, weights, gates)`: vectors times their gates, the weights, and the gates.

        `gates` is a dict with `audio_gate` [.. d_a] and `video_gate` [.. d_v], between 0 and 1. The weights
        [.. 2] of (audio, video), in at least float32, are the mean gates divided by their sum; they do not
        change the vectors. `modality_mask` is True for the modalities (audio, video) that a clip has; an
        absent one has weight 0, so both are 0 if both are absent. The gates and the vectors do not
        depend on it.
        """
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

    Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).

    Raises:
      ValueError: if `config.gates` is unknown.
    """

    def __init__(self, d_a: int, d_v: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        if config.gates not in GATE_TYPES:
            raise ValueError(
                f"config.model.fusion.gates: {config.gates!r}, expected one of {', '.join(GATE_TYPES)}"
            )
        self.gates = GATE_TYPES[config.gates](d_a, d_v, config, dtype, rngs=rngs)
        self.fbp = FBP(d_a, d_v, config, bias=True, rngs=rngs)

    def __call__(
        self,
        audio: Float[Array, "*n d_a"],
        video: Float[Array, "*n d_v"],
        modality_mask: Bool[Array, "*n 2"],
        *,
        train: bool,
        key: PRNGKey | None,
    ) -> tuple[Float[Array, "*n o"], Float[Array, "*n 2"], dict[str, Array]]:
        """Returns `(fused, weights, gates)`: vectors of width o, weights of (audio, video), and vector gates.

        o is `config.width`. `modality_mask` is True for the modalities (audio, video) that a clip has. The
        weights have the sum 1; an absent modality has weight 0, so both are 0 if both are absent. `gates` is
        a dict with `audio_gate` [.. d_a] and `video_gate` [.. d_v]; it is empty with scalar gates. Dropout,
        with `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, `config.dropout_place` is unknown, or
        `config.dropout` is not in [0, 1).
        """
        audio, video, weights, gates = self.gates(audio, video, modality_mask)
        return self.fbp(audio, video, train=train, key=key), weights, gates
