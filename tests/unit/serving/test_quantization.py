"""Weights in fewer bits: what is stored, how far it is off, and bundles that answer by it."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from emofuse_jax.api.export import export_bundle
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import quantization
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.train import train
from tests.support.fakes import tiny_config, write_dataset

RNG = np.random.default_rng(0)
WEIGHTS = {
    "params/kernel": RNG.normal(size=(3, 3, 8, 16)).astype(np.float32) * np.arange(1, 17, dtype=np.float32),
    "params/dead": np.zeros((4, 5), np.float32),
    "params/bias": RNG.normal(size=16).astype(np.float32),
    "model_state/mean": RNG.normal(size=(4, 4)).astype(np.float32),
}


def test_int8_is_half_a_step_off_at_most_in_each_channel():
    packed = quantization.quantize_weights(WEIGHTS, "int8")
    assert packed["params/kernel"].dtype == np.int8
    restored = quantization.dequantize_weights(packed)
    steps = np.abs(WEIGHTS["params/kernel"]).max((0, 1, 2)) / 127
    assert (np.abs(restored["params/kernel"] - WEIGHTS["params/kernel"]) <= steps / 2 * 1.0001).all()
    np.testing.assert_array_equal(restored["params/dead"], 0)
    assert list(restored) == list(WEIGHTS)
    for name in ("params/bias", "model_state/mean"):
        assert restored[name] is WEIGHTS[name]


def test_bfloat16_is_the_nearest():
    restored = quantization.dequantize_weights(quantization.quantize_weights(WEIGHTS, "bf16"))[
        "params/kernel"
    ]
    np.testing.assert_allclose(restored, WEIGHTS["params/kernel"], rtol=2**-8)
    assert restored.dtype == np.float32


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_rounding_twice_is_rounding_once(kind):
    params = {"a": {"kernel": WEIGHTS["params/kernel"]}, "b": WEIGHTS["params/bias"]}
    once = quantization.simulate_quantization(params, kind)
    twice = quantization.simulate_quantization(once, kind)
    assert jax.tree.structure(once) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), once, twice)
    assert quantization.simulate_quantization(params, "")["b"] is not None


@pytest.mark.parametrize(("kind", "dtype"), [("int8", "int8"), ("bf16", "bfloat16")])
def test_a_bundle_stores_fewer_bits_and_answers_as_the_rounded_checkpoint(
    audio_only_checkpoint, audio_bundle_path, tmp_path, kind, dtype
):
    path = str(tmp_path / "bundle")
    assert export_bundle(audio_only_checkpoint.workdir, path, quantize=kind) <= 1e-5
    bundle, full_bundle = load(path, engine="jax"), load(audio_bundle_path, engine="jax")
    assert (bundle.metadata["quantized"], bundle.metadata["schema"]) == (kind, 3)
    assert (full_bundle.metadata["quantized"], full_bundle.metadata["schema"]) == ("", 3)
    sizes = [
        os.path.getsize(os.path.join(folder, "params.safetensors")) for folder in (path, audio_bundle_path)
    ]
    kernels = [name for name, array in bundle.weights.items() if str(array.dtype) == dtype]
    assert len(kernels) > 5
    assert sizes[0] < sizes[1]
    inputs = dict(np.load(os.path.join(path, "parity.npz")))
    inputs = {k.removeprefix("input."): v for k, v in inputs.items() if k.startswith("input.")}
    quantized_probabilities, full_probabilities = (
        bundle.run(inputs)["probabilities"],
        full_bundle.run(inputs)["probabilities"],
    )
    assert 0 < np.abs(quantized_probabilities - full_probabilities).max() < 0.1
    assert (
        safetensors.numpy.load_file(os.path.join(path, "params.safetensors")).keys() == bundle.weights.keys()
    )


@pytest.mark.long
def test_the_command_says_what_it_costs_or_why_it_does_not_know(tmp_path):
    records, run = write_dataset(str(tmp_path / "records")), str(tmp_path / "run")
    train(open_experiment(tiny_config(records, "audio_only", **{"train.epochs": 1})), run)
    flags = (f"--workdir={run}", f"--output={tmp_path / 'bundle'}", "--quantize=int8")
    score = r"0\.\d{4} to 0\.\d{4}"
    costs = rf"int8 weights, change of scores on the validation clips: UA {score}, WA {score}"
    not_measured = "int8 weights: the change of scores was not measured: .*pass --data=RECORDS"
    for moved, words in ((False, costs), (True, not_measured)):
        if moved:
            os.rename(records, records + "_moved")
        done = subprocess.run(
            [sys.executable, "-m", "emofuse_jax.cli", "export", *flags], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert re.search(words, done.stdout), done.stdout
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["quantized"] == "int8"
