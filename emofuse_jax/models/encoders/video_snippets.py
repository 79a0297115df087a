"""Snippets of consecutive frames: a 3-D ResNet, then attention over space, channels and time (P4)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.encoders.video_frame_resnet import shrink
from emofuse_jax.models.interfaces import Encoded, Sequence
from emofuse_jax.models.layers.resnet3d import R3D, R3D18, output_size
from emofuse_jax.models.layers.token_attention import TokenAttention
from emofuse_jax.types import Batch, InputSpec


class SnippetEncoder(nnx.Module):
    """Faces to a sequence of `snippets` positions, each of `s / snippets` consecutive frames.

    The map of a snippet is averaged over its time; its positions attend to each other, then its channels do,
    its positions are averaged, and the snippets attend to each other (VAANet, arXiv 2003.00832, with
    multi-head attention). A snippet is valid when it has a face; frames without one are zero. `downsample`
    pixels become one.
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

    def __init__(self, config, spec: InputSpec, dtype, *, rngs: nnx.Rngs):
        self.count, self.factor, self.dtype = config.snippets, config.downsample, dtype
        if spec.h % self.factor or spec.w % self.factor:
            raise ValueError(f"video.downsample={self.factor} does not divide faces of {spec.h}x{spec.w}")
        steps = self._steps(spec.s)
        self.r3d = R3D(config, dtype, rngs=rngs)
        self.width = self.r3d.width
        _, y, x = output_size(config, steps, spec.h // self.factor, spec.w // self.factor)
        self.space = TokenAttention(self.width, config.heads, dtype, rngs=rngs)
        self.channels = TokenAttention(y * x, config.heads, dtype, rngs=rngs)
        self.time = TokenAttention(self.width, config.heads, dtype, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Encoded:
        """The snippets' vectors; aux: what each position, channel and snippet is looked at."""
        images, mask = self._cut(batch)  # b*n l h w 3, b n
        b, n = mask.shape
        maps = self.r3d(images, mask.reshape(b * n), train=train).mean(axis=1)  # b*n y x d
        values, aux = self._attend(maps)
        values, aux["time_attention"] = self.time(values.reshape(b, n, -1), mask)  # b*n d -> b n d
        for name in ("space_attention", "channel_attention"):
            aux[name] = aux[name].reshape(b, n, *aux[name].shape[1:])  # b*n .. -> b n ..
        order = jnp.broadcast_to(jnp.arange(n), (b, n))
        return Encoded(Sequence(values, mask, order, jnp.full(b, n)), aux)

    def _attend(self, maps: Float[Array, "n y x d"]) -> tuple[Float[Array, "n d"], dict]:
        n, y, x, d = maps.shape
        tokens = maps.reshape(n, y * x, d)  # n y x d -> n y*x d
        tokens, space = self.space(tokens, jnp.ones((n, y * x), bool))
        tokens, channels = self.channels(jnp.swapaxes(tokens, 1, 2), jnp.ones((n, d), bool))  # n d y*x
        aux = {
            "space_attention": space.mean(axis=1).reshape(n, y, x),  # n y*x -> n y x
            "channel_attention": channels.mean(axis=1),  # n d
        }
        return tokens.mean(axis=-1), aux

    def _cut(self, batch: Batch) -> tuple[Float[Array, "m l h w 3"], Bool[Array, "b n"]]:
        """Snippets of images in [-1, 1], faceless ones 0, and which snippets have a face."""
        b, s, h, w, c = batch.faces.shape
        steps, mask = self._steps(s), batch.face_mask
        images = batch.faces.reshape(b * s, h, w, c)  # b s h w c -> b*s h w c
        images = shrink(images.astype(jnp.float32) / 127.5 - 1.0, self.factor)
        images = jnp.where(mask.reshape(b * s)[:, None, None, None], images, 0.0)
        images = images.astype(self.dtype).reshape(b * self.count, steps, *images.shape[1:])  # b*n l h w c
        return images, mask.reshape(b, self.count, steps).any(axis=2)  # b s -> b n l

    def _steps(self, frames: int) -> int:
        if self.count < 1 or frames % self.count:
            raise ValueError(f"video.snippets={self.count} does not divide the {frames} frames of a clip")
        return frames // self.count
