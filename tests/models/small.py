"""Small networks for tests: a few channels, one row of frequency, small faces."""

import dataclasses

import jax
import jax.numpy as jnp

from emofuse_jax.models.build import build_model
from emofuse_jax.models.defaults import default_model_config
from emofuse_jax.types import InputSpec

SPEC = InputSpec(t=163, f=70, s=4, h=16, w=16, classes=5)


def small_config(fusion="am_fbp"):
    config = default_model_config(fusion)
    config.audio.widths = (4, 6, 6, 6, 8)
    config.audio.attention_width = 8
    config.video.width, config.video.blocks, config.video.embedding = 4, (1, 1), 12
    config.video.attention_width = 6
    if "width" in config.fusion:
        config.fusion.width = 8
    if "gate_width" in config.fusion:
        config.fusion.gate_width = 8
    return config


def small_model(fusion="am_fbp", spec=SPEC, seed=0, **fusion_fields):
    config = small_config(fusion)
    config.fusion.update(fusion_fields)
    model = build_model(config, spec)
    return model, *model.init(jax.random.key(seed))


def device_batch(model, n=4, seed=0, **fields):
    return jax.tree.map(jnp.asarray, dataclasses.replace(model.fake_batch(n, seed), **fields))


def float_leaves(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
