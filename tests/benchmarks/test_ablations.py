"""Every row changes fields that exist, and every ablation then trains."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.system_table import ABLATIONS, SYSTEMS
from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.training.experiment import flatten_fields
from emofuse_jax.training.step import init_state, make_train_step
from tests.models.small import SPEC


def make_small_config(experiment):
    config = settings.load_shipped(experiment)
    columns = ("kernels", "strides", "paddings", "norms", "pools")
    first = {name: config.model.audio[name][:1] for name in columns}
    config.model.audio.update(first, widths=(4,), attention_width=8)
    config.model.video.update(width=4, blocks=(1,), embedding=12, attention_width=6)
    config.model.fusion.width = 8
    config.augment.update(flip=False, shift=0, brightness=0.0, contrast=0.0, time_masks=0, frequency_masks=0)
    return config


@pytest.mark.parametrize("row", [*SYSTEMS, *ABLATIONS], ids=lambda row: row.name)
def test_a_row_names_fields_that_are_there_and_changes_one(row):
    defaults = flatten_fields(settings.small(row.config).to_dict())
    for name, value in row.fields.items():
        assert name in defaults
        assert isinstance(value, list | tuple) or type(defaults[name]) is type(value)
    changed = {name: value for name, value in row.fields.items() if defaults[name] != value}
    assert bool(changed) == bool(row.fields)


def test_no_two_rows_are_the_same():
    rows = (*SYSTEMS, *ABLATIONS)
    assert len({row.name for row in rows}) == len(rows)
    settings_of_rows = {(row.config, str(sorted(row.fields.items())), str(row.refit_fields)) for row in rows}
    assert len(settings_of_rows) == len(rows)
    for row in rows:
        assert os.path.basename(row.name) == row.name
        assert set(row.prerequisites) <= {row.name for row in rows}


@pytest.mark.parametrize("row", ABLATIONS, ids=lambda row: row.name)
def test_an_ablation_takes_a_step(row):
    config = make_small_config(row.config)
    config.update_from_flattened_dict(row.fields)
    config.model.audio.norms = config.model.audio.norms[:1]
    model, tx = build_model(config.model, SPEC), optax.sgd(0.1)
    statistics = np.full(SPEC.f, -4.0), np.ones(SPEC.f)
    init = jax.jit(lambda key: init_state(model, tx, key, statistics))
    state = init(jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, model.fake_batch(4))
    step = jax.jit(make_train_step(model, tx, config))
    state, measured = step(state, batch)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((state, measured)))
    if "loss.objectives.levels" in row.fields:
        assert measured["levels"] > 0


def test_fewer_frames_than_parts_are_refused():
    config = make_small_config("am_fbp")
    config.model.fusion.parts = 4
    with pytest.raises(ValueError, match=r"augment.frames=3: expected 0 \(all\), or at least fusion.parts=4"):
        make_train_step(None, None, config)


@pytest.mark.parametrize("name", ["am_fbp", "ag_fbp"])
def test_the_paper_s_recipe_samples_three_frames(name):
    assert settings.load_shipped(name).augment.frames == 3
