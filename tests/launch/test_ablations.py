"""Every ablation row changes fields that exist, and then trains."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emofuse_jax.models.build import build_model
from emofuse_jax.train.experiment import flatten
from emofuse_jax.train.step import init_state, make_train_step
from launch.ablations import ABLATIONS
from tests.models.small import QUICK, SPEC


def config_of(experiment):
    config = importlib.import_module(f"configs.{experiment}").get_config()
    columns = ("kernels", "strides", "paddings", "norms", "pools")
    first = {name: config.model.audio[name][:1] for name in columns}
    config.model.audio.update(first, widths=(4,), attention_width=8)
    config.model.video.update(width=4, blocks=(1,), embedding=12, attention_width=6)
    config.model.fusion.width = 8
    config.augment.update(flip=False, shift=0, brightness=0.0, contrast=0.0, time_masks=0, frequency_masks=0)
    return config


def test_rows_name_what_there_is():
    for experiment, fields in ABLATIONS.values():
        there = flatten(importlib.import_module(f"configs.{experiment}").get_config().to_dict())
        for name, value in fields.items():
            assert name in there, f"{experiment} has no {name}"
            assert type(there[name]) is type(value)
            assert there[name] != value, f"{name}={value} is {experiment}'s default"
    named = [(experiment, tuple(sorted(fields.items()))) for experiment, fields in ABLATIONS.values()]
    assert len(set(named)) == len(named)


CHANGED = [row for row, (_, fields) in ABLATIONS.items() if fields]  # test_configs.py trains the others


@pytest.mark.parametrize("row", CHANGED)
def test_a_row_takes_a_step(row):
    experiment, fields = ABLATIONS[row]
    config = config_of(experiment)
    config.update_from_flattened_dict(fields)
    model, tx = build_model(config.model, SPEC), optax.sgd(0.1)
    statistics = np.full(SPEC.f, -4.0), np.ones(SPEC.f)
    init = jax.jit(lambda key: init_state(model, tx, key, statistics), compiler_options=QUICK)
    state = init(jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, model.fake_batch(4))
    step = jax.jit(make_train_step(model, tx, config), compiler_options=QUICK)
    state, measured = step(state, batch)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((state, measured)))
    if "loss.objectives.levels" in fields:
        assert measured["levels"] > 0


def test_fewer_frames_than_parts_are_refused():
    config = config_of("am_fbp")
    config.model.fusion.parts = 4
    with pytest.raises(ValueError, match=r"augment.frames=3: expected 0 \(all\), or at least fusion.parts=4"):
        make_train_step(None, None, config)


@pytest.mark.parametrize("name", ["am_fbp", "ag_fbp"])
def test_the_paper_s_recipe_samples_three_frames(name):
    assert importlib.import_module(f"configs.{name}").get_config().augment.frames == 3
