"""The public API: documented examples run, names stay what they are, invalid arguments are one line."""

import ast
import csv
import dataclasses
import doctest
import importlib
import inspect
import os
import pathlib
import pkgutil
import subprocess
import sys
import types

import numpy as np
import pytest

import emofuse_jax as ef
from data_prep.synth.clip import render_clip
from emofuse_jax import losses
from emofuse_jax.models.registry import AUDIO_ENCODERS, FUSIONS

EXAMPLES = (
    *("write_records", "open_records", "config", "configs", "build_model", "train", "evaluate", "export"),
    *("load", "crossval", "compare", "register_fusion", "register_encoder", "register_objective"),
    *("register_corpus", "prepare"),
)
"""Functions in the order in which their examples run; later ones read what earlier ones wrote."""
NOT_IMPORTED = ("emofuse_jax.shipped", "emofuse_jax.cli.__main__", "emofuse_jax.cluster_templates")


pytestmark = pytest.mark.usefixtures("unchecked_shapes")
"""An export has a symbolic batch size, which the shape checks of the other tests can't take."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A working directory with three clips and clips.csv."""
    path = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        with open("clips.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "speaker"))
            for i, label in enumerate(("happy", "sad", "happy")):
                film = render_clip(speaker=i, p=i % 2, s_f=0, s_v=i % 2, damage="", corpus_seed=0, seed=i)
                (path / f"clip{i}.mp4").write_bytes(film)
                writer.writerow((f"clip{i}.mp4", label, f"s{i}"))
        yield path
    from data_prep.corpora import CORPORA

    for registry, name in ((FUSIONS, "maxout"), (AUDIO_ENCODERS, "wide_mel_cnn"), (CORPORA, "mine")):
        if name in registry:
            registry.unregister(name)
    if "small_logits" in losses.OBJECTIVES:
        losses.OBJECTIVES.unregister("small_logits")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, directory):
    tests = doctest.DocTestFinder(recurse=False).find(getattr(ef, name), name, globs={"ef": ef})
    assert sum(len(test.examples) for test in tests)
    output = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)


def test_an_unknown_split_is_one_line(directory):
    with pytest.raises(ValueError, match=r"split='dev': expected one of train, validation, test"):
        ef.evaluate("run", split="dev")  # of the examples


def test_every_function_has_an_example():
    functions = {name for name in ef.__all__ if inspect.isfunction(getattr(ef, name))}
    assert functions == set(EXAMPLES)


def test_names_survive_the_import_of_every_module():
    before = {name: getattr(ef, name) for name in ef.__all__}
    for module in pkgutil.walk_packages(ef.__path__, "emofuse_jax."):
        if not module.name.startswith(NOT_IMPORTED) and ".cli." not in module.name:
            importlib.import_module(module.name)
    for name, value in before.items():
        assert getattr(ef, name) is value, name
        assert isinstance(value, types.ModuleType | str) or value.__doc__, name
    assert not {
        name for name in ef.__all__ if name in {m.name for m in pkgutil.iter_modules(ef.__path__)}
    } - {"settings"}


def test_the_stub_has_the_same_names():
    stub = inspect.getfile(ef).replace("__init__.py", "__init__.pyi")
    stub_names = {}
    for node in ast.parse(pathlib.Path(stub).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            stub_names |= {alias.asname: node.module for alias in node.names}
        elif isinstance(node, ast.AnnAssign):
            stub_names[node.target.id] = "emofuse_jax"
    assert set(stub_names) == {*ef.__all__, "__all__"}
    for name in set(ef.__all__) - {"settings", "__version__"}:
        assert getattr(importlib.import_module(stub_names[name]), name) is getattr(ef, name), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ef.trian


def test_crossval_needs_a_seed_and_a_fold(tmp_path):
    for arguments in ({"seeds": 0}, {"folds": []}):
        with pytest.raises(ValueError, match="expected at least one seed and one fold"):
            ef.crossval(ef.config("concat"), tmp_path, tmp_path, **arguments)


def test_a_damaged_results_file_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"classes": [], "protocol": "", "runs": [{}], "corpus": "", "leaks": [], "pooled": {}}')
    results = ef.CrossvalResults(str(tmp_path))
    for read in (results.scores, lambda: results.export(tmp_path / "bundle"), lambda: ef.compare(path, path)):
        with pytest.raises(
            ValueError, match=r"results\.json: field runs\[0\].fold: expected int, found NoneType"
        ):
            read()


def test_a_fusion_declares_its_small_sizes(directory):
    class Wrong(FUSIONS["concat"]):
        small = {"attention_width": 8}

    with pytest.raises(
        ValueError, match="'wrong' is not a valid fusion: class Wrong: small has 'attention_width'"
    ):
        ef.register_fusion("wrong", Wrong)


def test_small_form_of_a_registered_fusion(directory):
    fusion = FUSIONS["concat"]
    ef.register_fusion("my_concat", fusion)
    try:
        for form in ("full", "small", "small_features"):
            assert ef.config("my_concat", form=form).model.fusion.name == "my_concat"
        with pytest.raises(ValueError, match="name='my_concat': this fusion exists already"):
            ef.register_fusion("my_concat", fusion)
        ef.register_fusion("my_concat", fusion, replace=True)
    finally:
        FUSIONS.unregister("my_concat")
    with pytest.raises(LookupError, match="experiment 'my_concat': expected one of"):
        ef.config("my_concat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "am_fbp", "form": "tiny"}, "form='tiny': expected one of full, small"),
        ({"name": "am_fbp", "train": {"epoch": 3}}, "config.train.epoch"),
        ({"name": "am_fbp", "sed": 3}, "config.sed"),
    ],
)
def test_invalid_configs(arguments, message):
    with pytest.raises(ValueError, match=message):
        ef.config(**arguments)


def make_clips(count=12, **fields):
    rng = np.random.default_rng(0)
    return [
        ef.Clip(
            f"clip{i}",
            f"speaker{i % 4}",
            ("sad", "happy")[i % 2],
            **{name: rng.normal(size=shape).astype(np.float32) for name, shape in fields.items()},
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "angry"}, "clip 'clip0': label 'angry', expected one of sad, happy"),
        ({"spectrogram": np.zeros((5, 7))}, r"clip 'clip0': spectrogram has shape \[5, 7\], expected"),
        (
            {"spectrogram": np.full((5, 8), np.nan)},
            "clip 'clip0': spectrogram has values that are not finite",
        ),
        ({"spectrogram": np.full((5, 8), 1e6)}, "do not fit float16"),
        ({"spectrogram": np.zeros(8)}, r"spectrogram has shape \[8\], expected 2 dimensions"),
        ({"spectrogram": np.zeros((0, 8))}, r"spectrogram has shape \[0, 8\]"),
        ({"spectrogram": np.full((5, 8), "a")}, "expected numbers"),
        ({"spectrogram": None}, "clip 'clip0': has neither audio nor a frame with a face"),
        ({"faces": np.zeros((2, 4, 4, 3))}, "clip 'clip0': faces is float64, expected uint8"),
        ({"faces": np.zeros((2, 4, 4, 3), np.uint8), "face_mask": [True]}, r"face_mask is bool\[1\]"),
        ({"clip_id": "clip1"}, "clip 'clip1': this clip_id occurs twice"),
    ],
)
def test_invalid_clips(tmp_path, change, message):
    clips = make_clips(spectrogram=(5, 8))
    clips = [clips[1], dataclasses.replace(clips[0], **change), *clips[2:]]
    with pytest.raises(ValueError, match=message):
        ef.write_records(tmp_path / "records", clips, classes=("sad", "happy"))
    assert not list(tmp_path.iterdir())  # nothing half written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ("sad",)}, r"classes=\('sad',\): expected at least two"),
        ({"classes": "sad"}, "expected at least two"),
        ({"hop_ms": 0.0}, "hop_ms=0.0: expected milliseconds"),
        ({"folds": [["nobody"]]}, r"folds\[0\]: unknown speaker 'nobody'"),
        ({"clips": []}, "clips: none were passed"),
    ],
)
def test_invalid_arguments(tmp_path, arguments, message):
    arguments = {"clips": make_clips(spectrogram=(5, 8)), "classes": ("sad", "happy")} | arguments
    with pytest.raises(ValueError, match=message):
        ef.write_records(tmp_path / "records", **arguments)
    assert not list(tmp_path.iterdir())


def test_records_hold_what_was_written(tmp_path):
    from data_prep.verify.records import verify

    rng = np.random.default_rng(1)
    clips = make_clips(spectrogram=(5, 8), audio_features=(3, 4))
    faces = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    clips += [ef.Clip("both", "speaker0", None, rng.normal(size=(9, 8)), faces, np.zeros((2, 4)))]
    clips += [ef.Clip("video", "speaker1", "sad", faces=faces[:1], face_mask=[True])]
    records = ef.write_records(
        tmp_path / "records", clips, classes=("sad", "happy"), folds=[["speaker0"], ["speaker1", "speaker2"]]
    )
    assert verify(records.path) == []
    assert records.folds == {"custom_2fold": [0, 1]}
    np.testing.assert_array_equal(records["both"].spectrogram, clips[12].spectrogram.astype(np.float16))
    np.testing.assert_array_equal(records["both"].faces, faces)
    assert records["both"].label == -1
    assert not records["clip0"].video_ok
    assert not records["video"].audio_ok
    np.testing.assert_array_equal(records["video"].face_valid, [True, False])
    np.testing.assert_array_equal(records["video"].faces, [faces[0], np.zeros_like(faces[0])])
    table = records.to_pandas()
    assert list(table.label[:2]) == ["sad", "happy"]
    assert table.label.isna().sum() == 1
    with pytest.raises(FileExistsError, match="exists already"):
        ef.write_records(records.path, clips, classes=("sad", "happy"))


def test_a_generator_is_read_once_and_tfds_reads_the_result(tmp_path):
    import tensorflow_datasets as tfds

    clips = make_clips(70, face_features=(2, 4))
    records = ef.write_records(tmp_path / "records", iter(clips), classes=("sad", "happy"))
    assert len(records.dataset.prep["shards"]) == 2
    source = tfds.builder_from_directory(records.path).as_data_source(split="clips")
    assert len(source) == 70
    np.testing.assert_array_equal(source[69]["face_features"], clips[69].face_features.astype(np.float16))
    assert source[69]["label"] == 1


def test_an_installed_package_provides_a_fusion_and_a_corpus(tmp_path):
    """Entry points need no import; a name that is not used is not imported."""
    (tmp_path / "third_party.py").write_text(
        "from emofuse_jax.models.fusions.concat import Concat\n"
        "class Third(Concat):\n    defaults = {'head_dropout': 0.25}\n"
        "def read_corpus(source):\n    raise ValueError(f'{source}: read by a third party')\n"
    )
    distribution = tmp_path / "third_party-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        "[emofuse.fusions]\nthird = third_party:Third\nbroken = no_such_module:X\n"
        "[emofuse.corpora]\nthird_corpus = third_party:read_corpus\n"
    )
    code = (
        "import emofuse_jax as ef\n"
        "print('broken' in ef.configs(), ef.config('third', form='small').model.fusion.head_dropout)\n"
        "from data_prep.corpora import read_corpus\n"
        "try: read_corpus('third_corpus', '.')\n"
        "except ValueError as error: print(error)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(ef.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["True 0.25", ".: read by a third party"], done.stderr
