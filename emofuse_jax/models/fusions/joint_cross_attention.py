"""Joint cross-attention (Praveen et al., arXiv 2203.14779, 2209.09068) beside each modality's own."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import EncodedSequences, FusionOutput
from emofuse_jax.models.layers.attention_pooling import AdditiveAttention
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops.joint_attention import joint_correlation, reweight
from emofuse_jax.ops.segments import resample_sequence
from emofuse_jax.types import PRNGKey


class JointReweighting(nnx.Module):
    """`H = relu(M W_m + (C^T M / l) W_c)`, `M' = M + H W_h`, with `C = tanh(M W J^T / sqrt(d))`."""

    def __init__(self, width: int, joint_width: int, config, dtype, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(scaled_uniform(1.0)(rngs.params(), (width, joint_width)))
        self.plain = linear(width, config.width, dtype, bias=False, rngs=rngs)
        self.seen = linear(width, config.width, dtype, bias=False, rngs=rngs)
        self.back = linear(config.width, width, dtype, bias=False, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b n d"], joint: Float[Array, "b n e"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"]]:
        """The re-weighted modality, zero where `mask` is False, and C."""
        correlation = joint_correlation(features, joint, self.kernel[...])
        hidden = jax.nn.relu(self.plain(features) + self.seen(reweight(correlation, features, mask)))
        return jnp.where(mask[..., None], features + self.back(hidden), 0), correlation


class JointCrossAttention(nnx.Module):
    """`z = [pool([A'; V']); pool(A); pool(V)]`, then the classifier.

    J = [A; V] joins features step by step, so both sequences are first brought to `steps` equal parts in time
    (`ops.segments.resample_sequence`): encoders may give any number of positions. A part without a valid one
    is zero, and so are its row and column of C. The single branches attend over the encoders' own positions.
    """

    modalities = ("audio", "video")
    takes = "sequences"
    defaults = {"steps": 8, "width": 128, "attention_width": 128, "temperature": 0.3, "head_dropout": 0.3}
    small = {"steps": 4, "width": 64, "attention_width": 64}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        if config.steps < 1:
            raise ValueError(f"fusion.steps: {config.steps}, expected at least 1")
        self.steps, joint_width = config.steps, d_a + d_v
        self.audio = JointReweighting(d_a, joint_width, config, dtype, rngs=rngs)
        self.video = JointReweighting(d_v, joint_width, config, dtype, rngs=rngs)
        self.joint_attention = AdditiveAttention(joint_width, config, dtype, rngs=rngs)
        self.audio_attention = AdditiveAttention(d_a, config, dtype, rngs=rngs)
        self.video_attention = AdditiveAttention(d_v, config, dtype, rngs=rngs)
        self.head = Head(2 * joint_width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, sequences: EncodedSequences, key: PRNGKey | None) -> FusionOutput:
        """Logits from the joint and the single branches; C and all attention weights go to `aux`."""
        (audio, audio_mask), (video, video_mask) = (
            resample_sequence(*sequence, num_segments=self.steps) for sequence in sequences
        )
        joint = jnp.concatenate([audio, video], axis=-1)  # b n d_a+d_v
        audio, audio_correlation = self.audio(audio, joint, audio_mask)
        video, video_correlation = self.video(video, joint, video_mask)
        concatenated = jnp.concatenate([audio, video], axis=-1)
        vectors, weights = zip(
            self.joint_attention(concatenated, (audio_mask | video_mask)[:, None]),
            self.audio_attention(sequences.audio.values, sequences.audio.mask[:, None]),
            self.video_attention(sequences.video.values, sequences.video.mask[:, None]),
            strict=True,
        )
        z = jnp.concatenate([vector[:, 0] for vector in vectors], axis=-1)  # b 2*(d_a+d_v)
        names = ("joint_attention", "audio_attention", "video_attention")
        aux = {name: branch_weights[:, 0] for name, branch_weights in zip(names, weights, strict=True)}
        aux |= {"audio_correlation": audio_correlation, "video_correlation": video_correlation}
        return FusionOutput(self.head(z, key), z, aux)
