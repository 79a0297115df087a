import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format

BARE_PROCESS_CODE = """
import sys
ABSENT = {"flax", "orbax", "grain", "optax", "tensorflow", "tensorflow_datasets", "array_record", "absl",
          "ml_collections", "jaxtyping", "librosa", "av", "cv2", "soxr", "rich", "matplotlib", "data_prep"}
OURS = ("emofuse_jax.models", "emofuse_jax.training", "emofuse_jax.data", "emofuse_jax.types")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT or name.startswith(OURS):
            raise ModuleNotFoundError(f"{name} is not needed here")

sys.meta_path.insert(0, Absent())
import numpy as np
from emofuse_jax.serving import load
bundle = load(sys.argv[1])
with np.load(sys.argv[2], allow_pickle=False) as stored:
    inputs = dict(stored)
outputs = {}
for size in (1, 3, 8):
    answer = bundle.run({name: array[:size] for name, array in inputs.items()})
    outputs |= {f"{size}.{name}": array for name, array in answer.items()}
np.savez(sys.argv[3], **outputs)
"""


def test_a_bare_process_answers_as_the_checkpoint_does(trained, bundle_path, inputs, tmp_path):
    inputs = {name: array.copy() for name, array in inputs.items()}
    inputs["audio_mask"][1] = False
    inputs["face_mask"][2] = False
    inputs_path, outputs_path = str(tmp_path / "inputs.npz"), str(tmp_path / "answers.npz")
    np.savez(inputs_path, **inputs)
    command = [sys.executable, "-c", BARE_PROCESS_CODE, bundle_path, inputs_path, outputs_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = trained.predict(inputs)
    with np.load(outputs_path, allow_pickle=False) as outputs:
        for size in (1, 3, 8):
            for name in ("logits", "probabilities", "modality_weights", "audio_attention", "video_attention"):
                np.testing.assert_allclose(outputs[f"{size}.{name}"], expected[name][:size], atol=1e-5)
    assert np.ptp(expected["logits"], axis=0).min() > 1e-3  # else everything would look the same


def test_what_is_masked_does_not_count(bundle_path, inputs):
    bundle = load(bundle_path)
    all_logits = bundle.run(inputs)["logits"]
    without_audio = inputs | {"audio_mask": np.zeros_like(inputs["audio_mask"])}
    other_audio = without_audio | {"audio": np.ones_like(inputs["audio"])}
    np.testing.assert_array_equal(bundle.run(without_audio)["logits"], bundle.run(other_audio)["logits"])
    assert np.abs(bundle.run(without_audio)["logits"] - all_logits).max() > 1e-3
    np.testing.assert_array_equal(bundle.run(without_audio)["modality_weights"], [[0.0, 1.0]] * 8)


def test_the_manifest_says_what_the_numbers_mean(trained, bundle_path):
    metadata = load(bundle_path).metadata
    for name in ("classes", "settings", "spec", "statistics", "training_speakers", "corpus", "protocol"):
        assert metadata[name] == trained.metadata[name]
    assert metadata["window"] == {"steps": 160, "seconds": 1.6}
    assert metadata["modalities"] == ["voice", "face"]
    assert metadata["platforms"] == ["cpu", "cuda", "tpu"]
    assert set(metadata["files"]) == {"model.stablehlo", "params.safetensors", "parity.npz", "MODEL_CARD.md"}
    assert "employment" in metadata["limits"]
    assert metadata["intended_use"]


@pytest.fixture
def bundle_copy(bundle_path, tmp_path) -> str:
    return shutil.copytree(bundle_path, str(tmp_path / "bundle"))


def rewrite_file(path: str, name: str, data: bytes, *, rehash: bool) -> None:
    with open(os.path.join(path, name), "wb") as file:
        file.write(data)
    if rehash:
        change_manifest(path, lambda m: m["files"].update({name: format.sha256(data)}))


def change_manifest(path: str, change) -> None:
    name = os.path.join(path, "bundle.json")
    with open(name) as file:
        metadata = json.load(file)
    change(metadata)
    with open(name, "w") as file:
        json.dump(metadata, file)


def assert_refused(path: str, *words: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as error:
        load(path)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["model.stablehlo", "params.safetensors", "parity.npz"])
def test_a_missing_or_damaged_file_is_named(bundle_copy, name):
    with open(os.path.join(bundle_copy, name), "rb") as file:
        data = file.read()
    rewrite_file(bundle_copy, name, data[:-1] + bytes([data[-1] ^ 1]), rehash=False)
    assert_refused(bundle_copy, f"{bundle_copy}/{name}", "damaged")
    rewrite_file(bundle_copy, name, data[: len(data) // 2], rehash=False)
    assert_refused(bundle_copy, f"{bundle_copy}/{name}", "damaged")
    os.remove(os.path.join(bundle_copy, name))
    assert_refused(bundle_copy, f"{bundle_copy}/{name}", "No such file")


def test_well_hashed_nonsense_is_refused(bundle_copy):
    for name in ("model.stablehlo", "params.safetensors"):
        original_data = format.read_verified(
            bundle_copy, name, format.read_manifest(bundle_copy)["files"][name]
        )
        rewrite_file(bundle_copy, name, b"\x10nonsense" * 9, rehash=True)
        assert_refused(bundle_copy, f"{bundle_copy}/{name}")
        rewrite_file(bundle_copy, name, original_data, rehash=True)
    rewrite_file(bundle_copy, "params.safetensors", safetensors.numpy.save({"a": np.zeros(1)}), rehash=True)
    assert_refused(bundle_copy, "params.safetensors", "names")


def test_no_pickle_is_read(bundle_copy):
    file = io.BytesIO()
    np.savez(file, **{"input.audio": np.array([{}], dtype=object)})
    rewrite_file(bundle_copy, "parity.npz", file.getvalue(), rehash=True)
    with pytest.raises(ValueError, match=r"parity\.npz: cannot be read: .* input\.audio has dtype object"):
        load(bundle_copy).measure_parity()


def test_answers_that_are_not_there_in_the_end(bundle_path, inputs):
    """Some errors of a device come when the numbers are fetched."""

    class FailsWhenFetched:
        def __array__(self, *args, **more):
            raise jax.errors.JaxRuntimeError("too late")

    bundle = dataclasses.replace(
        load(bundle_path), call=lambda weights, arrays: {"logits": FailsWhenFetched()}
    )
    with pytest.raises(ValueError, match=r"bundle: cannot be run: JaxRuntimeError: too late"):
        bundle.run(inputs)


def test_memory_that_is_not_there_is_no_fault_of_a_file(bundle_path, monkeypatch):
    def raise_memory_error(*args, **more):
        raise MemoryError

    bundle = load(bundle_path)
    monkeypatch.setattr(np.lib.format, "read_array", raise_memory_error)
    with pytest.raises(MemoryError):
        bundle.measure_parity()
    monkeypatch.setattr(jax.export, "deserialize", raise_memory_error)
    with pytest.raises(MemoryError):
        load(bundle_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m.update(schema=2),
            ("bundle schema 2;", "reads schema 3: export it again"),
        ),
        (lambda m: m.update(kind="something"), ("not a bundle",)),
        (lambda m: m.pop("classes"), ("field classes", "expected list")),
        (lambda m: m["files"].pop("parity.npz"), ("field files", "parity.npz")),
        (lambda m: m["files"].update({"../secret": "0"}), ("../secret", "plain file name")),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(bundle_copy, change, words):
    change_manifest(bundle_copy, change)
    assert_refused(bundle_copy, f"{bundle_copy}/bundle.json", *words)


def test_what_is_no_bundle_is_refused(bundle_copy, tmp_path):
    assert_refused(str(tmp_path), str(tmp_path), "not a bundle")
    assert_refused(str(tmp_path / "nowhere"), "nowhere", "not a bundle")
    rewrite_file(bundle_copy, "bundle.json", b"{", rehash=False)
    assert_refused(bundle_copy, "bundle.json", "not JSON")


def test_wrong_inputs_are_named(bundle_path, inputs):
    bundle = load(bundle_path)
    with pytest.raises(ValueError, match="inputs are"):
        bundle.run({"audio": inputs["audio"]})
    with pytest.raises(ValueError, match=r"input audio is float32\[8, 160, 80\]: expected float16"):
        bundle.run(inputs | {"audio": inputs["audio"].astype(np.float32)})
    with pytest.raises(ValueError, match="input face_mask"):
        bundle.run(inputs | {"face_mask": inputs["face_mask"][:5]})
    with pytest.raises(ValueError, match="at least 1"):
        bundle.run({name: array[:0] for name, array in inputs.items()})
