"""A reader adds a fusion as docs/extending.md says: one class, one call."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emofuse_jax as ef
from emofuse_jax.models.build import build_model
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.types import InputSpec
from tests.support.paths import ROOT
from tests.support.small_models import SPEC, small_config

PAGE = ROOT / "docs" / "extending.md"
FULL_SPEC = InputSpec(t=400, f=200, s=16, h=112, w=112, classes=7)
"""Of the records that `settings.experiment.data_defaults()` asks for."""


def read_code_blocks():
    """The page's two blocks of Python: the fusion with its registration, and its config."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def load_module(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def maxout(tmp_path):
    """The fusion of the page, registered; and the page's config of it."""
    code, config_code = read_code_blocks()
    load_module(tmp_path / "maxout.py", code)
    yield load_module(tmp_path / "config.py", "import emofuse_jax as ef\n" + config_code).config
    FUSIONS.unregister("maxout")


def test_the_fusion_of_the_docs_trains(maxout):
    assert maxout.model.fusion.to_dict() == {"name": "maxout", "width": 32, "head_dropout": 0.3}
    assert maxout.name == "maxout"
    config, name = ef.config("maxout"), "maxout"
    assert config.model.fusion.to_dict() == {"name": name} | FUSIONS[name].defaults
    full_model = build_model(config.model, FULL_SPEC)  # as `--config=maxout` builds it
    params, state = jax.eval_shape(full_model.init, jax.random.key(0))
    assert jax.tree.leaves(params["fusion"])
    outputs, _ = jax.eval_shape(full_model.apply, params, state, full_model.fake_batch(2))
    assert outputs.logits.shape == (2, FULL_SPEC.classes)
    config.model = small_config(name)
    model, tx = build_model(config.model, SPEC), make_optimizer(config.optimizer, 2)
    state = init_state(model, tx, jax.random.key(0), (np.full(SPEC.f, -4.0), np.ones(SPEC.f)))
    before = jax.tree.map(np.asarray, state.params["fusion"])
    step = jax.jit(make_train_step(model, tx, config))
    batch = jax.tree.map(jnp.asarray, model.fake_batch(4))
    for _ in range(2):
        state, measured = step(state, batch)
        assert np.isfinite(measured["loss"])
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state.params["fusion"]), strict=True):
        assert np.any(old != np.asarray(new))
