"""Joint cross-attention, together with attention pooling of each modality alone.

References: Praveen et al., 2022, arXiv 2203.14779 and 2209.09068.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequences, FusionOutput
from emofuse_jax.models.layers.attention_pooling import AdditiveAttention
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops.joint_attention import joint_correlation, reweight
from emofuse_jax.ops.segments import resample_sequence
from emofuse_jax.types import PRNGKey


class JointReweighting(nnx.Module):
    """Reweights one modality M by its correlation with the joint features J of both.

    `H = relu(M W_m + (C^T M / l) W_c)`, `M' = M + H W_h`, `C = tanh(M W J^T / sqrt(e))`, where e is the
    width of J.
    """

    def __init__(
        self, width: int, joint_width: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.kernel = nnx.Param(scaled_uniform(1.0)(rngs.params(), (width, joint_width)))
        self.plain = linear(width, config.width, dtype, bias=False, rngs=rngs)
        self.seen = linear(width, config.width, dtype, bias=False, rngs=rngs)
        self.back = linear(config.width, width, dtype, bias=False, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b n d"], joint: Float[Array, "b n e"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"]]:
        """Returns `(M', C)`: the reweighted modality, zero at masked positions, and the correlation matrix.

        `M' = M + relu(M W_m + (C^T M / l) W_c) W_h` with learned matrices W, where l is the number of valid
        positions. `features` is M, with n positions of width d; `joint` is J, the features of both modalities
        side by side, with n positions of width e; `mask` is True at valid positions of M. Row i of C belongs
        to position i of M, column j to position j of J; its entries are in [-1, 1].
        """
        correlation = joint_correlation(features, joint, self.kernel[...])
        hidden = jax.nn.relu(self.plain(features) + self.seen(reweight(correlation, features, mask)))
        return jnp.where(mask[..., None], features + self.back(hidden), 0), correlation


class JointCrossAttention(nnx.Module):
    """Fusion `z = [pool([A'; V']); pool(A); pool(V)]`, then the classifier.

    J = [A; V] joins the features of both modalities step by step, so both sequences are first resampled to
    `steps` equal parts of time (`ops.segments.resample_sequence`); encoders may give any number of positions.
    A part without a valid position is zero, and so is its row or column of C. The branches of one modality,
    pool(A) and pool(V), attend over the positions of the encoders.

    Raises:
      ValueError: if `config.steps` is below 1.
    """

    modalities = ("audio", "video")
    takes = "sequences"
    defaults = {"steps": 8, "width": 128, "attention_width": 128, "temperature": 0.3, "head_dropout": 0.3}
    small = {"steps": 4, "width": 64, "attention_width": 64}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if config.steps < 1:
            raise ValueError(f"config.model.fusion.steps: {config.steps}, expected at least 1")
        self.steps, joint_width = config.steps, d_a + d_v
        self.audio = JointReweighting(d_a, joint_width, config, dtype, rngs=rngs)
        self.video = JointReweighting(d_v, joint_width, config, dtype, rngs=rngs)
        self.joint_attention = AdditiveAttention(joint_width, config, dtype, rngs=rngs)
        self.audio_attention = AdditiveAttention(d_a, config, dtype, rngs=rngs)
        self.video_attention = AdditiveAttention(d_v, config, dtype, rngs=rngs)
        self.head = Head(2 * joint_width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, sequences: EncodedSequences, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from the joint branch and the branches of one modality.

        Args:
          sequences: `audio` and `video`; each has `values` [b l d] of l positions, `mask` [b l], True at
            valid positions, `time_index` [b l], the time step of each position, and `length` [b], the number
            of steps of each clip.
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b 2(d_a+d_v)], the pooled vectors of
          the three branches (joint, audio, video) side by side; and the dict `aux` with the attention weights
          `joint_attention` [b n] over the n = `config.steps` equal parts of time, `audio_attention` [b l] and
          `video_attention` [b l] over the l positions of each encoder, and the correlations
          `audio_correlation` and `video_correlation` [b n n] in [-1, 1] of each modality (rows) with the
          joint features (columns). The pooled vector, weights and correlations of an absent modality are 0.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        audio_sequence, video_sequence = sequences.of_both_modalities()
        audio, audio_mask = resample_sequence(*audio_sequence, num_segments=self.steps)
        video, video_mask = resample_sequence(*video_sequence, num_segments=self.steps)
        joint = jnp.concatenate([audio, video], axis=-1)  # b n d_a+d_v
        audio, audio_correlation = self.audio(audio, joint, audio_mask)
        video, video_correlation = self.video(video, joint, video_mask)
        concatenated = jnp.concatenate([audio, video], axis=-1)
        vectors, weights = zip(
            self.joint_attention(concatenated, (audio_mask | video_mask)[:, None]),
            self.audio_attention(audio_sequence.values, audio_sequence.mask[:, None]),
            self.video_attention(video_sequence.values, video_sequence.mask[:, None]),
            strict=True,
        )
        z = jnp.concatenate([vector[:, 0] for vector in vectors], axis=-1)  # b 2*(d_a+d_v)
        names = ("joint_attention", "audio_attention", "video_attention")
        aux = {name: branch_weights[:, 0] for name, branch_weights in zip(names, weights, strict=True)}
        aux |= {"audio_correlation": audio_correlation, "video_correlation": video_correlation}
        return FusionOutput(self.head(z, train=train, key=key), z, aux)
