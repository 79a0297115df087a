"""What fuzzing found, each as the one line that it gives now."""

import contextlib
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from emofuse_jax import settings
from emofuse_jax.data.dataset import open_dataset, read_statistics
from emofuse_jax.data.example_codec import parse_example
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from emofuse_jax.serving.media.prepare_window import prep_requirements
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.saved_config import saved_config, saved_spec
from tests.robustness.fuzz.bombs import make_bombs
from tests.robustness.fuzz.kinds.bundles import update_hashes
from tests.support.fakes import write_dataset
from tests.unit.serving.test_bundle import change_manifest

SPEC = {"t": 140, "f": 80, "s": 4, "h": 32, "w": 32, "classes": 3}
SPEC |= {"feature_steps": 0, "audio_features": 0, "face_features": 0}


@pytest.fixture
def checkpoint_copy(trained, tmp_path):
    """A checkpoint to alter: its workdir, and the file of its metadata."""
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    return str(workdir), workdir / "checkpoints" / "best" / "0" / "_CHECKPOINT_METADATA"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged: not JSON"),
        ("[" * 100_000, "damaged: not JSON: maximum recursion"),
        ("[1]", "damaged: expected an object, found list"),
        ("{}", "damaged: metadata field schema is missing"),
    ],
)
def test_metadata_of_a_checkpoint(checkpoint_copy, text, message, capfd):
    """Told once: orbax would also print all of the file."""
    workdir, file = checkpoint_copy
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"\A[^\n]*checkpoints/best[^\n]*{message}[^\n]*\Z"):
        store.read_metadata(workdir, "best")
    assert capfd.readouterr() == ("", "")


def test_fields_of_a_checkpoint(checkpoint_copy):
    workdir, file = checkpoint_copy
    metadata = json.loads(file.read_text())
    metadata["custom_metadata"]["classes"] = "angry"
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="checkpoints/best: field classes: expected list, found str"):
        store.read_metadata(workdir, "best")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", None, "config.model: expected an object, found NoneType"),
        ("model.fusion.name", ["x"], r"config.model.fusion.name: expected a name, found \"\['x'\]\""),
        ("model.audio.widths", "abc", "config.model.audio.widths: 'abc', expected a list of at most 100"),
        ("model.audio.widths", [1.5], "config.model.audio.widths: 1.5, expected an integer"),
        ("model.video.width", 10**30, r"config.model.video.width: 10+, expected an integer from -1048576"),
        (
            "model.video.blocks",
            [10**6],
            "config.model.video.blocks: 1000000, expected an integer from -100 to",
        ),
        ("model.audio.temperature", float("nan"), "temperature: nan, expected a finite number"),
        ("data.balanced", 1, "config.data.balanced: 1, expected bool"),
        ("augment", [], r"config.augment: \[\], expected an object with fields"),
    ],
)
def test_the_config_of_a_checkpoint(field, value, message):
    config = settings.base("am_fbp").to_dict()
    section, *names = config, *field.split(".")
    for name in names[:-1]:
        section = section[name]
    section[names[-1]] = value
    with pytest.raises(ValueError, match=message):
        saved_config({"config": config})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": "a"}, "spec.t: 'a', expected an integer"),
        ({"t": 1 << 20, "f": 1 << 20}, "spec: .* expected 0 to 268435456 values"),
        ({"w": -1}, "spec: .* expected 0 to"),
        ({"z": 1}, "spec.z: there is no such field"),
        ({"t": None}, "spec.t: None, expected an integer"),
    ],
)
def test_the_shape_of_a_checkpoint(change, message):
    assert vars(saved_spec({"spec": SPEC})) == SPEC
    with pytest.raises(ValueError, match=message):
        saved_spec({"spec": SPEC | change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["spec"].update(t=10), "model.stablehlo: input audio .* does not match field spec"),
        (
            lambda m: m["spec"].update(t="x"),
            "bundle.json: field spec.t: expected a whole number from 0 to 2147483647, found x",
        ),
        (lambda m: m["spec"].update(x=1), "bundle.json: field spec: unknown field 'x'"),
        (
            lambda m: m["window"].update(seconds=0),
            "bundle.json: field window.seconds: expected a number above 0",
        ),
        (lambda m: m.update(modalities=["nose"]), "bundle.json: field modalities: expected voice or face"),
        (lambda m: m["classes"].pop(), "bundle.json: field classes: expected 3 different names"),
        (lambda m: m["classes"].append("sad"), "bundle.json: field classes: expected 3 different names"),
        (lambda m: m.pop("corpus"), "bundle.json: field corpus: expected str, found NoneType"),
        (lambda m: m.update(encoders={"nose": {}}), "bundle.json: field encoders: 'nose'"),
        (
            lambda m: m["settings"].pop("audio"),
            "bundle.json: field settings is invalid: preparation settings.audio: this field is missing",
        ),
        (
            lambda m: m["settings"]["audio"].update(bins="x"),
            "settings.audio.bins: 'x', expected an integer",
        ),
    ],
)
def test_the_fields_of_a_bundle(bundle_copy, change, message):
    change_manifest(bundle_copy, change)
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}"):
        prep_requirements(load(str(bundle_copy)))


def test_files_of_a_bundle_whose_hash_fits(bundle_copy):
    """Weights of other shapes, answers of other shapes, and what is no archive."""
    weights = safetensors.numpy.load_file(bundle_copy / format.WEIGHTS_FILE)
    other = {name: np.append(array.ravel(), array.ravel()[:1]) for name, array in weights.items()}
    weights_bytes = (bundle_copy / format.WEIGHTS_FILE).read_bytes()
    (bundle_copy / format.WEIGHTS_FILE).write_bytes(safetensors.numpy.save(other))
    update_hashes(str(bundle_copy))
    with pytest.raises(ValueError, match=r"params\.safetensors: names, shapes or dtypes differ from those"):
        load(str(bundle_copy))
    (bundle_copy / format.WEIGHTS_FILE).write_bytes(weights_bytes)
    with np.load(bundle_copy / format.PARITY_FILE, allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez(bundle_copy / format.PARITY_FILE, **arrays | {"output.logits": np.zeros((4, 1), np.float32)})
    update_hashes(str(bundle_copy))
    with pytest.raises(ValueError, match=r"output\.logits has shape \[4, 1\], expected \[1 to 64, 3\]"):
        load(str(bundle_copy)).measure_parity()
    np.savez(bundle_copy / format.PARITY_FILE, **arrays | {"output.logits": np.zeros((3, 3), np.float32)})
    update_hashes(str(bundle_copy))
    with pytest.raises(
        ValueError, match=r"parity\.npz: output logits has shape \[3, 3\]: expected \[4, 3\] as the model"
    ):
        load(str(bundle_copy)).measure_parity()
    (bundle_copy / format.PARITY_FILE).write_bytes(b"PK\3\4")
    update_hashes(str(bundle_copy))
    with pytest.raises(ValueError, match=r"parity\.npz: cannot be read: BadZipFile"):
        load(str(bundle_copy)).measure_parity()


def test_a_field_of_a_record_whose_name_is_no_text():
    feature = b"\x0a\x09\x0a\x01\xff\x12\x04\x0a\x02\x0a\x00"
    assert parse_example(b"\x0a" + bytes([len(feature)]) + feature) == {"\ufffd": [b""]}


@contextlib.contextmanager
def limit_memory(max_bytes: int):
    """Fails where Python takes more memory than that at once; numpy's arrays count too."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < max_bytes
    finally:
        tracemalloc.stop()


BOMB_ARCHIVES = make_bombs(["mean", "std"], block_count=4)


@pytest.mark.parametrize("name", BOMB_ARCHIVES)
def test_statistics_that_unpack_to_more(tmp_path, name):
    dataset = open_dataset(write_dataset(str(tmp_path), num_clips=12))
    (tmp_path / "stats" / "fake_1fold" / "fold_0.npz").write_bytes(BOMB_ARCHIVES[name])
    message = r"\A[^\n]*fold_0\.npz: [^\n]* mean has [^\n]*, expected (at most \d+|\[70\])[^\n]*\Z"
    with limit_memory(4 << 20), pytest.raises(ValueError, match=message):
        read_statistics(dataset, "fake_1fold", 0)


@pytest.mark.parametrize("name", BOMB_ARCHIVES)
def test_inputs_of_a_bundle_that_unpack_to_more(bundle_copy, name):
    with np.load(bundle_copy / format.PARITY_FILE, allow_pickle=False) as stored:
        names = sorted(stored.files)
    (bundle_copy / format.PARITY_FILE).write_bytes(make_bombs(names, block_count=4)[name])
    update_hashes(str(bundle_copy))
    bundle = load(str(bundle_copy))
    message = r"\A[^\n]*parity\.npz: cannot be read: [^\n]* input\.\w+ has [^\n]*, expected [^\n]*\Z"
    with limit_memory(4 << 20), pytest.raises(ValueError, match=message):
        bundle.measure_parity()
