"""Every shipped config builds, takes two steps and stays finite."""

import ast
import dataclasses

import jax
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.settings.shipped import shipped_path
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.types import InputSpec, TrainState
from tests.support.fakes import random_parameters
from tests.support.tiers import mark_others_long

CONFIGS_WITHOUT_EXPERIMENT = {
    "demo",
    "gan",
}  # of the last, see tests/integration/training/test_refit_fusion.py
EXPERIMENTS = sorted({*settings.shipped_names()} - CONFIGS_WITHOUT_EXPERIMENT)
FEATURES = {"feature_steps": 12, "audio_features": 10, "face_features": 8}
SPEC = InputSpec(t=140, f=200, s=4, h=112, w=112, classes=6, **FEATURES)


def make_spec(config):
    """Two frames a snippet, and small ones: three-dimensional convolutions take long."""
    if "snippets" not in config.model.video:
        return dataclasses.replace(SPEC, t=max(SPEC.t, config.augment.crop))
    return dataclasses.replace(SPEC, s=2 * config.model.video.snippets, h=56, w=56)


def random_state(config):
    """The state of step 0 with random parameters; compiling the initialisation of a network takes long."""
    model, tx = make_model_and_optimizer(config)
    params, model_state = random_parameters(model, 0)
    return TrainState(jax.numpy.zeros((), int), params, model_state, tx.init(params))


def make_model_and_optimizer(config):
    return build_model(config.model, make_spec(config)), make_optimizer(config.optimizer, 10)


def check_two_steps(config, state):
    model, tx = make_model_and_optimizer(config)
    before = jax.tree.map(np.asarray, state.params)
    step = jax.jit(make_train_step(model, tx, config))
    for seed in range(2):
        state, metrics = step(state, model.fake_batch(2, seed=seed))
    for leaf in jax.tree.leaves((state, metrics)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    changed = jax.tree.map(lambda a, b: (a != np.asarray(b)).any(), before, state.params)
    assert any(jax.tree.leaves(changed))
    assert int(state.step) == 2
    jax.clear_caches()  # the programs of full-size networks are large


@pytest.mark.parametrize("load", [settings.load_shipped, settings.small])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_config_has_a_train_step(name, load):
    """Traced in both forms: nothing is computed."""
    config = load(name)
    model, tx = make_model_and_optimizer(config)
    statistics = np.full(SPEC.f, -3.0, np.float32), np.full(SPEC.f, 2.0, np.float32)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, statistics), jax.random.key(0))
    new_state, metrics = jax.eval_shape(make_train_step(model, tx, config), state, model.fake_batch(2))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.mark.long
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_config_trains(name):
    config = settings.load_shipped(name)
    assert config.name == name
    check_two_steps(config, random_state(config))


SHORT_EXPERIMENTS = ("am_fbp", "avef", "hgr_semi", "joint_cross_attention", "speech")


@pytest.mark.parametrize("name", mark_others_long(EXPERIMENTS, *SHORT_EXPERIMENTS))
def test_its_demo_form_trains(name):
    config = settings.small(name)
    check_two_steps(config, random_state(config))


@pytest.mark.long
def test_the_other_encoder_of_speech_trains():
    config = settings.load_shipped("speech", "mel_cnn")
    check_two_steps(config, random_state(config))


@pytest.mark.parametrize("name", [*EXPERIMENTS, *sorted(CONFIGS_WITHOUT_EXPERIMENT)])
def test_the_docstring_is_its_receipt(name):
    docstring = ast.get_docstring(ast.parse(shipped_path(name).read_text()))
    assert "Command:" in docstring


def test_bfloat16_averaging_and_accumulation_train():
    config = settings.small("am_fbp")
    config.model.dtype, config.optimizer.ema, config.optimizer.accumulate = "bfloat16", 0.99, 2
    check_two_steps(config, random_state(config))


def test_there_is_a_config_for_every_fusion():
    from emofuse_jax.models.registry import FUSIONS

    fusion_names = {settings.load_shipped(name).model.fusion.name for name in EXPERIMENTS}
    assert fusion_names == set(FUSIONS)
