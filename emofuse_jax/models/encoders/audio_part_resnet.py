"""2-D ResNet on equal parts of a spectrogram, then attention between the parts.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.encoders.video_frame_resnet import RESNET18, ResNet
from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.token_attention import TokenAttention
from emofuse_jax.ops.segments import cut_segments
from emofuse_jax.types import Batch, InputSpec


class PartResNet(nnx.Module):
    """Encodes a spectrogram as a sequence of `parts` positions, each from the steps around its centre.

    A window is as long as one part of the longest clip (`spec.t` steps): 67 steps for 4 s and 6 parts. In
    shorter clips the windows overlap. Reference: the audio stream of VAANet (Zhao et al., 2020, arXiv
    2003.00832).

    Raises:
      ValueError: if `config.parts` is below 1.
    """

    defaults = RESNET18 | {"parts": 6, "heads": 4}
    small = {"width": 8, "blocks": (1, 1, 1), "stem_kernel": 5, "stem_stride": 4, "attention_width": 64}
    small_limits = {"parts": 3}
    small_augment = {"frequency_masks": 2, "frequency_width": 60}  # it overfits the demo speakers' spectra

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        if config.parts < 1:
            raise ValueError(f"config.model.audio.parts: {config.parts}, expected at least 1")
        self.parts, self.window_frames = config.parts, -(-spec.t // config.parts)
        self.resnet = ResNet(config, dtype, in_channels=1, rngs=rngs)
        self.width = self.resnet.width
        self.time = TokenAttention(self.width, config.heads, dtype, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio` [b t f], standardised and zero at padding, as one position per part.

        If `train`, batch norms use the statistics of the batch and update their running statistics.

        Returns:
          `sequence` and `aux`. The sequence has n = `config.parts` positions, one for each equal part of the
          clip: `values` [b n d] of width d (the attribute `width`), which have no meaning at masked parts;
          `mask` [b n], False for a part without a valid step in its window; `time_index` [b n], the number of
          the part, from 0; and `length` [b], always n. `aux` has `time_attention` [b n n]: row i has the
          weights of all parts for part i, with sum 1 over the valid parts (all 0 if there is none).
        """
        windows, window_mask = cut_segments(
            batch.audio, batch.audio_mask, num_segments=self.parts, window_steps=self.window_frames
        )
        b, n, w, f = windows.shape
        mask = window_mask.any(axis=2)
        images = windows.reshape(b * n, w, f, 1)  # b n w f -> b*n w f 1
        vectors = self.resnet(images, mask.reshape(b * n), train=train)
        values, attention_weights = self.time(vectors.reshape(b, n, -1), mask)  # b*n d -> b n d
        time_index = jnp.broadcast_to(jnp.arange(n), (b, n))
        return EncoderOutput(
            EncodedSequence(values, mask, time_index, jnp.full(b, n)), {"time_attention": attention_weights}
        )
