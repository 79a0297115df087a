"""Bundles with ONNX: written by jax2onnx, answered by onnxruntime as by JAX."""

import importlib.util
import os

import jax
import numpy as np
import pytest

from emofuse_jax.api.export import export_bundle
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import onnx_model

needs_jax2onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not here: make onnx"
)


@pytest.fixture(scope="module")
def onnx_bundle_path(trained, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("onnx") / "bundle")
    assert export_bundle(trained.workdir, path, onnx=True) <= onnx_model.ONNX_TOLERANCE
    return path


@needs_jax2onnx
def test_both_engines_answer_alike_for_any_batch(onnx_bundle_path, inputs):
    jax_bundle, onnx_bundle = load(onnx_bundle_path, engine="jax"), load(onnx_bundle_path, engine="onnx")
    assert (jax_bundle.engine, onnx_bundle.engine) == ("jax", "onnx")
    for rows in (1, 3, 8):
        batch = {name: array[:rows] for name, array in inputs.items()}
        onnx_outputs, jax_outputs = onnx_bundle.run(batch), jax_bundle.run(batch)
        assert onnx_outputs.keys() == jax_outputs.keys()
        for name in jax_outputs:
            np.testing.assert_allclose(onnx_outputs[name], jax_outputs[name], atol=1e-4, err_msg=name)
    assert load(onnx_bundle_path).engine == "onnx"  # on a CPU


@needs_jax2onnx
def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    def compute(inputs):
        window = (1, 2, 2), (1, 1, 1), "VALID"
        return {"y": jax.lax.reduce_window(inputs["x"], np.inf, jax.lax.min, *window)}

    with pytest.raises(ValueError, match="primitive 'reduce_window_min'"):
        onnx_model.write_onnx(str(tmp_path / "m.onnx"), compute, {"x": ((4, 4), np.float32)}, ["y"])
    assert os.listdir(tmp_path) == []


def test_what_is_missing_is_named(trained, bundle_path, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"needs model\.onnx; export the bundle again with --onnx"):
        load(bundle_path, engine="onnx")
    with pytest.raises(ValueError, match="engine='tensorrt': expected one of auto, jax, onnx"):
        load(bundle_path, engine="tensorrt")
    assert load(bundle_path).engine == "jax"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--onnx needs jax2onnx; install it: make onnx"):
        export_bundle(trained.workdir, str(tmp_path / "bundle"), onnx=True)
    assert onnx_model.choose_engine("auto", "b", has_onnx=True) == "jax"
    with pytest.raises(ValueError, match=r"pip install '\.\[onnx\]'"):
        onnx_model.choose_engine("onnx", "b", has_onnx=True)
