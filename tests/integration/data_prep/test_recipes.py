"""The recipes beside `fbp`: their settings, and whole preparations."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.process_clip import process_clip
from data_prep.settings import RECIPES, FaceSettings, PrepSettings, recipe_settings
from data_prep.synth.clip import render_clip
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.writing.corpus import MediaClip
from tests.support.media_files import ramp_frames, tone, write_media
from tests.support.paths import ROOT
from tests.support.small_corpus import open_tfds_source

SMALL_RECIPES = {
    "hgr": recipe_settings("hgr", frames=5, face_size=24),
    "cross_attention": recipe_settings("cross_attention", frames=6, snippet=3, face_size=24),
}

# Settings


@pytest.mark.parametrize("settings", [*RECIPES.values(), *SMALL_RECIPES.values()], ids=lambda s: s.recipe)
def test_settings_come_back(settings):
    stored = json.loads(json.dumps(settings.to_dict()))
    assert PrepSettings.from_dict(stored) == settings


def test_settings_have_every_field():
    """What prep.json holds, letter by letter."""
    stored = {
        "recipe": "fbp",
        "audio": {
            "frontend": "log_spectrogram_v1",
            "sample_rate": 16000,
            "window_ms": 40.0,
            "hop_ms": 10.0,
            "window": "hamming",
            "dft": 800,
            "bins": 200,
            "floor": 1e-05,
            "waveform": False,
            "trim_db": 0.0,
        },
        "face": {
            "detector": "mtcnn_v2",
            "frames": 16,
            "sampling": "even",
            "size": 112,
            "margin": 0.3,
            "min_face": 0.12,
            "min_score": 0.8,
            "snippet": 1,
            "device": "cpu",
        },
        "features": {"tensors": "keep", "audio": None, "face": None, "detector": None},
    }
    assert RECIPES["fbp"].to_dict() == stored
    assert PrepSettings.from_dict(stored) == RECIPES["fbp"]
    for section in ("audio", "face", "features"):
        for field in stored[section]:
            fields = {name: value for name, value in stored[section].items() if name != field}
            with pytest.raises(ValueError, match=rf"settings\.{section}\.{field}: this field is missing"):
                PrepSettings.from_dict(stored | {section: fields})


def test_recipes_are_those_of_the_papers():
    hgr, cross = RECIPES["hgr"], RECIPES["cross_attention"]
    assert (hgr.face.frames, hgr.face.sampling) == (30, "even")
    assert (hgr.audio.bins, hgr.audio.window_ms, hgr.audio.window) == (94, 40.0, "hann")
    assert (cross.face.frames // cross.face.snippet, cross.face.snippet, cross.face.size) == (6, 16, 112)
    assert (cross.audio.bins, cross.audio.window_ms, cross.audio.window) == (256, 32.0, "hamming")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 10}, "frames 10, snippet 16: expected .* a multiple of snippet"),
        ({"face_size": 0}, "size 0"),
    ],
)
def test_frames_that_are_no_snippets(change, message):
    with pytest.raises(ValueError, match=message):
        recipe_settings("cross_attention", **change)
    with pytest.raises(ValueError, match="snippet 2: expected 1 if sampling=even"):
        recipe_settings("hgr", snippet=2)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match=r"^recipe 'x': expected one of fbp, hgr"):
        recipe_settings("x")


# Whole preparations


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three speakers; two clips with a drawn face, one with sound alone is enough of a mixture."""
    folder = tmp_path_factory.mktemp("drawn")
    for i in range(2):
        clip = render_clip(speaker=i, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=i)
        (folder / f"{i}.mp4").write_bytes(clip)
    write_media(folder / "2.mp4", frames=ramp_frames(0.2), audio=tone(0.3))
    (folder / "clips.csv").write_text("path,label,speaker\n0.mp4,x,ann\n1.mp4,y,bob\n2.mp4,y,cid\n")
    return str(folder)


@pytest.mark.parametrize("name", SMALL_RECIPES)
def test_prepared_clips_are_those_of_process_clip_and_open_in_tfds(corpus, name, tmp_path):
    settings = SMALL_RECIPES[name]
    summary = prepare(read_corpus("folder", corpus), settings, str(tmp_path), workers=0)
    assert (summary.num_complete, summary.masked, summary.failed, summary.problems) == (2, 1, (), ())
    dataset, source = open_dataset(str(tmp_path), recipe=name), open_tfds_source(tmp_path)
    assert PrepSettings.from_dict(dataset.prep["settings"]) == settings
    assert dataset.prep["frames"] == settings.face.frames
    record = dataset.read(0)
    reprocessed = process_clip(MediaClip("0.mp4", os.path.join(corpus, "0.mp4"), 0, "ann"), settings)
    for field in ("spectrogram", "faces", "face_time", "face_box", "face_landmarks", "face_valid"):
        np.testing.assert_array_equal(getattr(record, field), getattr(reprocessed, field))
        np.testing.assert_array_equal(getattr(record, field), source[0][field])
    assert record.faces.shape == (settings.face.frames, 24, 24, 3)
    assert record.face_valid.all()
    if name == "cross_attention":
        np.testing.assert_allclose(np.diff(record.face_time.reshape(2, 3), axis=1), 0.04, atol=1e-3)


@pytest.mark.parametrize("name", SMALL_RECIPES)
def test_windows_of_a_file_are_prepared_as_a_clip_is(corpus, name):
    path = os.path.join(corpus, "0.mp4")
    record = process_clip(MediaClip("a", path, -1, "", start=1.0, end=1.6), SMALL_RECIPES[name])
    assert (record.audio_ok, record.video_ok) == (True, True)
    assert record.spectrogram.shape[0] == 61
    assert (record.face_time >= -0.04).all()
    assert (record.face_time < 0.6).all()


def test_a_clip_shorter_than_a_snippet(corpus):
    record = process_clip(
        MediaClip("a", os.path.join(corpus, "0.mp4"), -1, "", start=1.0, end=1.1),
        recipe_settings("cross_attention", frames=16, snippet=8, face_size=24),
    )
    assert record.face_valid.all()
    assert len(np.unique(record.face_time)) in (2, 3)


def test_by_command_with_other_frames(corpus, tmp_path):
    command_line = [sys.executable, os.path.join(ROOT, "launch", "prepare.py"), "--corpus=folder"]
    command_line += [
        f"--source={corpus}",
        f"--output={tmp_path}/out",
        "--recipe=cross_attention",
        "--workers=1",
    ]
    wrong = subprocess.run(
        [*command_line, "--frames=5", "--snippet=2"], capture_output=True, text=True, cwd=ROOT
    )
    assert wrong.returncode != 0
    assert "frames 5, snippet 2: expected" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    done = subprocess.run(
        [*command_line, "--frames=4", "--snippet=2", "--face_size=20"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    face = open_dataset(str(tmp_path / "out"), recipe="cross_attention").prep["settings"]["face"]
    assert FaceSettings(**face) == dataclasses.replace(
        RECIPES["cross_attention"].face, frames=4, snippet=2, size=20
    )
