"""Every shipped config exports to a bundle that answers alike: in its demo form, and long at its full size.

By onnxruntime too, where `make onnx` was run.
"""

import dataclasses
import importlib
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.api.export import export_bundle
from emofuse_jax.models.build import build_model
from emofuse_jax.serving.bundle.export import PARITY_TOLERANCE
from emofuse_jax.serving.bundle.onnx_model import ONNX_TOLERANCE
from emofuse_jax.training.checkpoint import store
from emofuse_jax.types import TrainState
from tests.contract.test_configs import EXPERIMENTS, SPEC, make_spec
from tests.support.bundles import SETTINGS
from tests.support.fakes import random_parameters

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # the batch size of an export is a symbol

needs_jax2onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not here: make onnx"
)


SHORT_EXPERIMENTS = ("am_fbp", "hgr_semi", "joint_cross_attention", "late", "speech")
CASES = [(name, "demo") for name in SHORT_EXPERIMENTS]
CASES += [
    pytest.param(name, form, marks=pytest.mark.long)
    for name in EXPERIMENTS
    for form in ("demo", "full")
    if (name, form) not in CASES
]


def load_config(form: str, name: str):
    if form == "demo":
        return settings.small(name)
    return settings.load_shipped(name)


@pytest.mark.parametrize("engine", ["jax", pytest.param("onnx", marks=needs_jax2onnx)])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_its_bundle_answers_as_the_checkpoint(tmp_path, name, form, engine):
    config = load_config(form, name)
    spec = make_spec(config)
    model = build_model(config.model, spec)
    params, model_state = random_parameters(model, seed=1)
    metadata = {
        "config": json.loads(json.dumps(config.to_dict(), default=list)),
        "classes": [str(i) for i in range(SPEC.classes)],
        "settings": SETTINGS.to_dict(),
        "spec": dataclasses.asdict(spec),
        "statistics": {"mean": np.zeros(spec.f).tolist(), "std": np.ones(spec.f).tolist()},
        "training_speakers": ["a"],
        "training_clips_sha256": "",
        "corpus": "fake",
        "protocol": "speakers",
        "fold": 0,
        "leaks": [],
        "step": 0,
        "versions": {"jax": jax.__version__},
        "progress": {},
        "temperature": 1.2,
    }
    state = TrainState(jnp.zeros((), jnp.int32), params, model_state, {"count": jnp.zeros(())})
    store.save(str(tmp_path / "run"), "best", state, metadata)
    onnx, tolerance = {"jax": (False, PARITY_TOLERANCE), "onnx": (True, ONNX_TOLERANCE)}[engine]
    assert export_bundle(str(tmp_path / "run"), str(tmp_path / "bundle"), onnx=onnx) <= tolerance
    jax.clear_caches()
