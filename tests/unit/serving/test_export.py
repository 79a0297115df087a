import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from emofuse_jax.api.export import export_bundle
from emofuse_jax.models.build import build_model
from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import export, format
from emofuse_jax.serving.bundle.load import input_shapes
from tests.support.bundles import SPEC, save_checkpoint, tiny_config
from tests.support.fakes import random_parameters


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_exports_with_a_symbolic_batch(fusion):
    model = build_model(tiny_config(fusion), SPEC)
    tree = dict(zip(("params", "model_state"), random_parameters(model, 0), strict=True))
    known_shapes = input_shapes(vars(SPEC))
    shapes = {name: known_shapes[name] for name in model.input_fields}
    exported = jax.export.deserialize(
        bytearray(export.export_graph(model, tree, flatten_by_path(tree), shapes, 1.0))
    )
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(outputs["probabilities"].shape[0]) == "b"
    assert outputs["logits"].shape[1] == SPEC.classes
    is_pooled = FUSIONS[fusion].takes == "vectors"  # by attention over the positions of each stream
    expected = {f"{name}_attention" for name in FUSIONS[fusion].modalities} if is_pooled else set()
    assert expected <= set(outputs)


def test_a_bfloat16_model_keeps_parity(tmp_path):
    trained = save_checkpoint(tmp_path / "run", "g_fbp", "bfloat16")
    assert export.export_bundle(trained.workdir, str(tmp_path / "bundle")) <= 1e-5
    graph = (tmp_path / "bundle" / "model.stablehlo").read_bytes()
    assert "bf16" in jax.export.deserialize(bytearray(graph)).mlir_module()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": {}}, "audio.hop_ms: this field is missing"),
        ({"audio": {"hop_ms": "10"}}, "audio.hop_ms: '10', expected a finite number"),
        ({"features": {"audio": None, "face": None}}, "features.detector: this field is missing"),
        (
            {"features": {"audio": {"file": 1}, "face": None, "detector": None}},
            "features.audio.file: 1, expected",
        ),
        (
            {"features": {"audio": None, "face": {}, "detector": None}},
            "features.face.file: this field is missing",
        ),
        (
            {"features": {"audio": None, "face": "x", "detector": None}},
            "features.face: 'x', expected an object",
        ),
    ],
)
def test_damaged_settings_are_named(change, message):
    settings = {"audio": {"hop_ms": 10.0}, "features": {"audio": None, "face": None, "detector": None}}
    export._check_settings(settings, "settings")
    with pytest.raises(ValueError, match=rf"\Asettings\.{message}"):
        export._check_settings(settings | change, "settings")


def test_an_unknown_kind_of_encoder_is_named(audio_only_checkpoint, tmp_path):
    message = "encoders: 'voice', expected only the kinds audio, face, detector"
    with pytest.raises(ValueError, match=message):
        export.export_bundle(audio_only_checkpoint.workdir, str(tmp_path / "b"), encoders={"voice": "x.onnx"})
    with pytest.raises(ValueError, match=message):
        format.find_encoders("bundle", {}, {"voice": ""})


def perturb(path: str, amount: float) -> None:
    """Adds to the classifier's bias in a written bundle, and makes the hash right again."""
    metadata = format.read_manifest(path)
    weights = safetensors.numpy.load_file(os.path.join(path, format.WEIGHTS_FILE))
    name = next(name for name in weights if name.endswith("head/linear/bias"))
    weights[name] = weights[name] + np.array([amount, 0, 0], np.float32)
    safetensors.numpy.save_file(weights, os.path.join(path, format.WEIGHTS_FILE))
    format.write_manifest(path, metadata)


def test_a_bundle_that_answers_otherwise_is_not_exported(audio_only_checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "out" / "bundle"
    export.export_bundle(audio_only_checkpoint.workdir, str(output))
    before = (output / "bundle.json").read_bytes()
    write_correctly = export.write_bundle

    def write_wrongly(path, *args):
        write_correctly(path, *args)
        perturb(path, 3e-5)

    monkeypatch.setattr(export, "write_bundle", write_wrongly)
    with pytest.raises(ValueError, match=r"\A[^\n]*differ from the checkpoint's by [23]\S*e-05[^\n]*\Z"):
        export.export_bundle(audio_only_checkpoint.workdir, str(output))
    assert (output / "bundle.json").read_bytes() == before  # the old one stays
    assert os.listdir(output.parent) == ["bundle"]  # and nothing half made lies about


def test_answers_that_are_not_numbers_are_not_exported(audio_only_checkpoint, tmp_path):
    bundle_path = str(tmp_path / "bundle")
    assert export.export_bundle(audio_only_checkpoint.workdir, bundle_path) <= 1e-5
    perturb(bundle_path, np.nan)
    with pytest.raises(ValueError, match="differ from the checkpoint's by nan"):
        export.check_parity(bundle_path)


def test_only_a_bundle_is_replaced(audio_only_checkpoint, tmp_path):
    output = tmp_path / "mine"
    output.mkdir()
    export_bundle(audio_only_checkpoint.workdir, str(output))  # an empty directory is no loss
    (output / "model.onnx").write_bytes(b"stale")
    export_bundle(audio_only_checkpoint.workdir, str(output))
    assert load(str(output)).metadata["modalities"] == ["voice"]
    assert sorted(os.listdir(output)) == [
        "MODEL_CARD.md",
        "bundle.json",
        "model.stablehlo",
        "params.safetensors",
        "parity.npz",
    ]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear")
    with pytest.raises(ValueError, match="photos: exists and is not a bundle, so it is not replaced"):
        export.export_bundle(audio_only_checkpoint.workdir, str(tmp_path / "photos"))
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"dear"


def test_no_checkpoint_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no best checkpoint"):
        export.export_bundle(str(tmp_path / "run"), str(tmp_path / "bundle"))
    assert os.listdir(tmp_path) == []


def test_the_command_exports_what_everyone_may_read(audio_only_checkpoint, tmp_path):
    output = tmp_path / "bundle"
    command = [
        sys.executable,
        "-m",
        "emofuse_jax.cli",
        "export",
        f"--workdir={audio_only_checkpoint.workdir}",
        f"--output={output}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{output}: ")
    assert len({path.stat().st_mode for path in output.iterdir()}) == 1
    assert load(str(output)).measure_parity() <= 1e-5
