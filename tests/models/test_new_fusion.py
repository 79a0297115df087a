"""A reader adds a fusion with one file, one registry line and one config, as docs/extending.md says."""

import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.models.build import build_model
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.types import InputSpec
from tests.models.small import SPEC, small_config

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "extending.md"
FULL_SPEC = InputSpec(t=400, f=200, s=16, h=112, w=112, classes=7)
"""Of the records that `settings.experiment.data_defaults()` asks for."""


def read_code_blocks():
    """The page's three blocks of code: the fusion, its line in the registry, its config."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def load_module(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fusion_of_the_docs_trains(tmp_path, monkeypatch):
    code, line, text = read_code_blocks()
    name, cls = re.fullmatch(r'"(\w+)": (\w+),\n', line).groups()
    assert name not in FUSIONS
    monkeypatch.setitem(FUSIONS, name, getattr(load_module(tmp_path / f"{name}.py", code), cls))
    config = load_module(tmp_path / "config.py", text).get_config()
    assert config.model.fusion.name == name
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
