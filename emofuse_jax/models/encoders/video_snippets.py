"""3-D ResNet on snippets of consecutive frames, then attention over space, channels and time.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.encoders.video_frame_resnet import downsample_images
from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.resnet3d import R3D, R3D18, output_size
from emofuse_jax.models.layers.token_attention import TokenAttention
from emofuse_jax.types import Batch, InputSpec


class SnippetEncoder(nnx.Module):
    """Encodes faces as a sequence of `snippets` positions, each from `s / snippets` consecutive frames.

    The feature map of a snippet is averaged over time. Then its positions attend to each other, its channels
    attend to each other, the positions are averaged, and the snippets attend to each other. Reference: VAANet
    (Zhao et al., 2020, arXiv 2003.00832), here with multi-head attention. A snippet is valid if it has a
    face; frames without a face are zero. Faces are first downsampled by `config.downsample`.

    Raises:
      ValueError: if `config.downsample` does not divide the height and the width of the faces, or
        `config.snippets` does not divide the number of frames.
    """

    defaults = R3D18 | {"snippets": 6, "heads": 4, "downsample": 1}
    small = {
        "width": 16,
        "blocks": (1, 1, 1),
        "stem_kernel": (3, 3, 3),
        "stem_stride": (2, 2, 2),
        "downsample": 2,
        "attention_width": 64,
    }
    small_limits = {"snippets": 3}

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.snippet_count, self.downsample_factor, self.dtype = config.snippets, config.downsample, dtype
        if spec.h % self.downsample_factor or spec.w % self.downsample_factor:
            raise ValueError(
                f"config.model.video.downsample={self.downsample_factor} does not divide faces of"
                f" {spec.h}x{spec.w} pixels; set it to a divisor of height and width"
            )
        snippet_frames = self._frames_per_snippet(spec.s)
        self.r3d = R3D(config, dtype, rngs=rngs)
        self.width = self.r3d.width
        _, y, x = output_size(
            config, snippet_frames, spec.h // self.downsample_factor, spec.w // self.downsample_factor
        )
        self.space = TokenAttention(self.width, config.heads, dtype, rngs=rngs)
        self.channels = TokenAttention(y * x, config.heads, dtype, rngs=rngs)
        self.time = TokenAttention(self.width, config.heads, dtype, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.faces`, uint8 [b s h w 3], as one position per snippet of consecutive frames.

        If `train`, batch norms use the statistics of the snippets with a face and update their running
        statistics.

        Returns:
          `sequence` and `aux`. The sequence has n = `config.snippets` positions: `values` [b n d], a vector
          whose width d is the number of channels of the feature map (no meaning at masked snippets); `mask`
          [b n], True for snippets with a face in at least one frame (`batch.face_mask`); `time_index` [b n],
          the number of the snippet, from 0; and `length` [b], always n. `aux` has the attention weights that
          the y x x pixels of the feature map (`space_attention` [b n y x]) and its channels
          (`channel_attention` [b n d]) receive, as means over the heads and over all pixels or channels that
          attend, with sum 1 for each snippet; and `time_attention` [b n n]: row i has the weights of all
          snippets for snippet i, with sum 1 over those with a face (all 0 if there is none).

        Raises:
          ValueError: if the number of snippets does not divide the number of frames of the batch.
        """
        images, mask = self._cut_snippets(batch)  # b*n l h w 3, b n
        b, n = mask.shape
        maps = self.r3d(images, mask.reshape(b * n), train=train).mean(axis=1)  # b*n y x d
        values, aux = self._attend(maps)
        values, aux["time_attention"] = self.time(values.reshape(b, n, -1), mask)  # b*n d -> b n d
        for name in ("space_attention", "channel_attention"):
            aux[name] = aux[name].reshape(b, n, *aux[name].shape[1:])  # b*n .. -> b n ..
        time_index = jnp.broadcast_to(jnp.arange(n), (b, n))
        return EncoderOutput(EncodedSequence(values, mask, time_index, jnp.full(b, n)), aux)

    def _attend(self, maps: Float[Array, "n y x d"]) -> tuple[Float[Array, "n d"], dict[str, Array]]:
        n, y, x, d = maps.shape
        tokens = maps.reshape(n, y * x, d)  # n y x d -> n y*x d
        tokens, space_weights = self.space(tokens, jnp.ones((n, y * x), bool))
        tokens, channel_weights = self.channels(jnp.swapaxes(tokens, 1, 2), jnp.ones((n, d), bool))  # n d y*x
        aux = {
            "space_attention": space_weights.mean(axis=1).reshape(n, y, x),  # n y*x -> n y x
            "channel_attention": channel_weights.mean(axis=1),  # n d
        }
        return tokens.mean(axis=-1), aux

    def _cut_snippets(self, batch: Batch) -> tuple[Float[Array, "m l h w 3"], Bool[Array, "b n"]]:
        """Returns `(images, mask)`: the frames of all snippets, downsampled, and which snippets have a face.

        `images` has m = b n snippets of l frames, clip by clip, of h x w pixels after downsampling; values
        are in [-1, 1], and 0 in frames without a face. `mask` is True for snippets with a face in at least
        one frame. Raises ValueError if the number of snippets does not divide the number of frames.
        """
        b, s, h, w, c = batch.faces.shape
        snippet_frames, mask = self._frames_per_snippet(s), batch.face_mask
        images = batch.faces.reshape(b * s, h, w, c)  # b s h w c -> b*s h w c
        images = downsample_images(images.astype(jnp.float32) / 127.5 - 1.0, self.downsample_factor)
        images = jnp.where(mask.reshape(b * s)[:, None, None, None], images, 0.0)
        images = images.astype(self.dtype).reshape(
            b * self.snippet_count, snippet_frames, *images.shape[1:]
        )  # b*n l h w c
        return images, mask.reshape(b, self.snippet_count, snippet_frames).any(axis=2)  # b s -> b n l

    def _frames_per_snippet(self, frames: int) -> int:
        if self.snippet_count < 1 or frames % self.snippet_count:
            raise ValueError(
                f"config.model.video.snippets={self.snippet_count} does not divide the {frames} frames of a"
                " clip; set it to a divisor of this number"
            )
        return frames // self.snippet_count
