"""Every option of the FBP fusions and their encoders trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.training.step import make_train_step
from emofuse_jax.types import TrainState
from tests.support.fakes import random_parameters
from tests.support.small_models import SPEC


def config_of(experiment):
    config = settings.load_shipped(experiment)
    columns = ("kernels", "strides", "paddings", "norms", "pools")
    first = {name: config.model.audio[name][:1] for name in columns}
    config.model.audio.update(first, widths=(4,), attention_width=8)
    config.model.video.update(width=4, blocks=(1,), embedding=12, attention_width=6)
    config.model.fusion.width = 8
    config.augment.update(flip=False, shift=0, brightness=0.0, contrast=0.0, time_masks=0, frequency_masks=0)
    return config


OPTIONS = {
    "no_attention": ("g_fbp", {"model.audio.temperature": 0.0, "model.video.temperature": 0.0}),
    "no_dropout": ("g_fbp", {"model.fusion.dropout": 0.0}),
    "power_norm": ("g_fbp", {"model.fusion.power_norm": True}),
    "k_1": ("g_fbp", {"model.fusion.factors": 1}),
    "k_8": ("g_fbp", {"model.fusion.factors": 8}),
    "o_32": ("g_fbp", {"model.fusion.width": 32}),
    "ag_fbp-vector_gates": ("ag_fbp", {"model.fusion.gates": "vector"}),
    "2d": ("am_fbp", {"model.audio.attn_axes": "2d"}),
    "1d_mean": ("am_fbp", {"model.audio.attn_axes": "1d_mean"}),
    "additive": ("am_fbp", {"model.video.attention": "additive"}),
    "relation": ("am_fbp", {"model.video.attention": "relation"}),
    "transformer": ("am_fbp", {"model.video.attention": "transformer"}),
    "am_fbp-vector_gates": ("am_fbp", {"model.fusion.gates": "vector"}),
    "2_parts": ("am_fbp", {"model.fusion.parts": 2}),
    "4_parts": ("am_fbp", {"model.fusion.parts": 4, "augment.frames": 4}),
    "auxiliary_levels": ("am_fbp", {"model.fusion.auxiliary": True, "loss.objectives.levels": 0.3}),
    "dropout_pooled": ("g_fbp", {"model.fusion.dropout_place": "pooled"}),
    "lrn": ("g_fbp", {"model.audio.norms": ("lrn", "lrn", "none", "none", "none")}),
    "all_frames": ("am_fbp", {"augment.frames": 0}),
}
"""Fields that a user may change, one change a row, and a config that they belong to."""


@pytest.mark.parametrize(("experiment", "fields"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_takes_a_step(experiment, fields):
    config = config_of(experiment)
    config.update_from_flattened_dict(fields)
    config.model.audio.norms = config.model.audio.norms[:1]
    model, tx = build_model(config.model, SPEC), optax.sgd(0.1)
    params, model_state = random_parameters(model, 0)  # compiling the initialisation would take longer
    state = TrainState(jnp.zeros((), int), params, model_state, tx.init(params))
    batch = jax.tree.map(jnp.asarray, model.fake_batch(4))
    step = jax.jit(make_train_step(model, tx, config))
    state, measured = step(state, batch)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((state, measured)))
    if "loss.objectives.levels" in fields:
        assert measured["levels"] > 0


def test_fewer_frames_than_parts_are_refused():
    config = config_of("am_fbp")
    config.model.fusion.parts = 4
    with pytest.raises(
        ValueError,
        match=r"config.augment.frames=3: expected 0 \(all\) or at least config.model.fusion.parts=4",
    ):
        make_train_step(None, None, config)


@pytest.mark.parametrize("name", ["am_fbp", "ag_fbp"])
def test_the_paper_s_recipe_samples_three_frames(name):
    assert settings.load_shipped(name).augment.frames == 3
