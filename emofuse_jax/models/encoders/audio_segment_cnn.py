"""Small convolutional network for windows of a spectrogram; it gives one vector per segment.

Reference: Common Information (Ma et al., 2020, Appl. Sci. 10(20), 7239).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import conv
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.ops.maxpool import max_pool
from emofuse_jax.ops.segments import cut_segments
from emofuse_jax.types import Batch, InputSpec

SEGMENT_CNN = {"segments": 30, "segment_steps": 64, "widths": (32, 64, 128, 256), "momentum": 0.9}
"""Default config fields: segments per clip, steps of the window of a segment (0.64 s, a design choice), one
block for each of `widths`, momentum of the batch norms."""


class ConvBlocks(nnx.Module):
    """Blocks of 3x3 convolution, batch norm over the valid windows, ReLU and 2x2 max-pool; then the mean.

    Raises:
      ValueError: if a window has too few steps or bins for the blocks, each of which halves both.
    """

    def __init__(
        self, config: ConfigDict, steps: int, bins: int, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        min_size, self.block_count = 2 ** len(config.widths), len(config.widths)
        if min(steps, bins) < min_size:
            raise ValueError(
                f"config.model.audio.widths: {self.block_count} blocks need windows of at least {min_size}"
                f" steps and bins, not {steps} steps and {bins} bins; use fewer widths, more steps"
                " (config.model.audio.segment_steps), or records with more frequency bins"
            )
        channels = 1
        for i, width in enumerate(config.widths, 1):
            conv_layer = conv(channels, width, 3, 1, 1, dtype, bias=False, rngs=rngs)
            setattr(self, f"conv{i}", conv_layer)
            norm = nnx.BatchNorm(width, momentum=config.momentum, dtype=dtype, rngs=rngs)
            setattr(self, f"norm{i}", norm)
            channels = width
        self.width = channels

    def __call__(
        self, windows: Float[Array, "n w f"], mask: Bool[Array, " n"], *, train: bool
    ) -> Float[Array, "n d"]:
        """Computes one vector of width d for each of the n windows of w steps and f bins.

        d is the last of `config.widths`. w and f must be at least 2 to the power of the number of blocks;
        otherwise slicing raises TypeError. `mask` is True for valid windows; the vectors of the others have
        no meaning. If `train`, batch norms use the statistics of the valid windows, and update their running
        statistics.
        """
        x, mask = windows[..., None], mask[:, None, None, None]
        for i in range(1, self.block_count + 1):
            x = masked_batch_norm(getattr(self, f"norm{i}"), getattr(self, f"conv{i}")(x), mask, train=train)
            x = max_pool(jax.nn.relu(x), size=2, stride=2)
        return x.mean(axis=(1, 2))


class SegmentEncoder(nnx.Module):
    """Encodes audio of any length as a sequence of `segments` vectors.

    A segment is valid if the step at its centre is; in a clip with audio, all segments usually are. Steps of
    a window outside the clip are zero, which is the mean of the standardised bins.

    Raises:
      ValueError: if `config.segments` is below 1, or a window has too few steps or bins for the blocks.
    """

    defaults = SEGMENT_CNN
    small = {"segments": 8, "segment_steps": 32, "widths": (8, 16, 32, 64), "attention_width": 64}

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.segments, self.window_frames = config.segments, config.segment_steps
        if self.segments < 1:
            raise ValueError(f"config.model.audio.segments: {self.segments}, expected at least 1")
        self.blocks = ConvBlocks(config, self.window_frames, spec.f, dtype, rngs=rngs)
        self.width = self.blocks.width

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio` [b t f], a standardised log spectrogram that is zero at padding.

        If `train`, batch norms use the statistics of the batch and update their running statistics.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has n = `config.segments` positions, one for each
          equal part of the clip: `values` [b n d], computed from the `config.segment_steps` steps around the
          centre of the segment, of width d, the last of `config.widths` (no meaning at masked segments);
          `mask` [b n], True if the step at the centre is valid in `batch.audio_mask`; `time_index` [b n], the
          number of the segment, from 0; and `length` [b], always n.
        """
        windows, window_mask = cut_segments(
            batch.audio, batch.audio_mask, num_segments=self.segments, window_steps=self.window_frames
        )  # b n w f
        b, n, w, f = windows.shape
        mask = window_mask[:, :, self.window_frames // 2]
        values = self.blocks(windows.reshape(b * n, w, f), mask.reshape(b * n), train=train)  # b*n d
        time_index = jnp.broadcast_to(jnp.arange(n), (b, n))
        return EncoderOutput(EncodedSequence(values.reshape(b, n, -1), mask, time_index, jnp.full(b, n)), {})
