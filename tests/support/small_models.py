"""Small networks for tests: a few channels, one row of frequency, small faces."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from emofuse_jax.models.build import build_model
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import InputSpec

SPEC = InputSpec(t=163, f=70, s=4, h=16, w=16, classes=5)


def small_config(fusion="am_fbp"):
    config = default_model_config(fusion)
    config.audio.widths = (4, 6, 6, 6, 8)
    if fusion in ("ag_fbp", "am_fbp"):  # as AM-FBP does
        config.audio.attn_axes, config.video.attention = "1d_concat", "self"
    config.audio.attention_width = 8
    config.video.width, config.video.blocks, config.video.embedding = 4, (1, 1), 12
    config.video.attention_width = 6
    if "width" in config.fusion:
        config.fusion.width = 8
    for name in ("gate_width", "common_width"):
        if name in config.fusion:
            config.fusion[name] = 8
    if "layers" in config.fusion:
        config.fusion.update(layers=2, fusion_layer=0, hidden=16)
    return config


@functools.cache
def small_model(fusion="am_fbp", **fields):
    """A model, its numbers, and its jitted `apply`; `fields` are dotted, with `__` for the dot."""
    config = small_config(fusion)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    model = build_model(config, SPEC)
    params_and_state = jax.jit(model.init)(jax.random.key(0))
    return model, *params_and_state, jax.jit(model.apply, static_argnames="train")


def device_batch(model, n=4, seed=0, **fields):
    return jax.tree.map(jnp.asarray, dataclasses.replace(model.fake_batch(n, seed), **fields))


def float_leaves(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
