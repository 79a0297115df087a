"""The recipes beside `fbp`: their settings, snippets of frames, and whole preparations."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.corpora.base import Clip
from data_prep.faces.between import EVERY, mix, track_snippets
from data_prep.media import VideoTrack, probe
from data_prep.pipeline import prepare
from data_prep.process import process_clip
from data_prep.sampling import snippet_times
from data_prep.settings import RECIPES, FaceSettings, PrepSettings, recipe_settings
from data_prep.synth.clip import render_clip
from emofuse_jax.data.dataset import open_dataset
from tests.data_prep.face_fakes import fake_face
from tests.data_prep.media_files import ramp, tone, write
from tests.data_prep.small_corpus import ROOT, tfds_source

SMALL = {
    "hgr": recipe_settings("hgr", frames=5, face_size=24),
    "cross_attention": recipe_settings("cross_attention", frames=6, snippet=3, face_size=24),
}

# Settings


@pytest.mark.parametrize("settings", [*RECIPES.values(), *SMALL.values()], ids=lambda s: s.recipe)
def test_settings_come_back(settings):
    stored = json.loads(json.dumps(settings.to_dict()))
    assert PrepSettings.from_dict(stored) == settings


def test_settings_of_earlier_records_still_compare():
    """What prep.json of the first version holds, letter by letter."""
    old = {
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
        },
        "face": {
            "detector": "mtcnn_v1",
            "frames": 16,
            "sampling": "even",
            "size": 112,
            "margin": 0.3,
            "min_face": 0.12,
            "min_score": 0.8,
        },
    }
    assert RECIPES["fbp"].to_dict() == old
    assert PrepSettings.from_dict(old) == RECIPES["fbp"]


def test_recipes_are_those_of_the_papers():
    hgr, cross = RECIPES["hgr"], RECIPES["cross_attention"]
    assert (hgr.face.frames, hgr.face.sampling) == (30, "even")
    assert (hgr.audio.bins, hgr.audio.window_ms, hgr.audio.window) == (94, 40.0, "hann")
    assert (cross.face.frames // cross.face.snippet, cross.face.snippet, cross.face.size) == (6, 16, 112)
    assert (cross.audio.bins, cross.audio.window_ms, cross.audio.window) == (256, 32.0, "hamming")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frames": 10}, "frames 10, snippet 16: expected .* a multiple of snippet"),
        ({"face_size": 0}, "size 0"),
    ],
)
def test_frames_that_are_no_snippets(change, told):
    with pytest.raises(ValueError, match=told):
        recipe_settings("cross_attention", **change)
    with pytest.raises(ValueError, match="snippet 2: expected 1 for 'even'"):
        recipe_settings("hgr", snippet=2)


# Snippets


def track_of(times):
    times = np.asarray(times, float)
    return VideoTrack(0, np.arange(len(times)), times, np.ones(len(times), bool), True, times.max() + 0.04)


def test_snippets_are_runs_around_the_centres_of_equal_parts():
    track = track_of(np.random.default_rng(0).permutation(100) * 0.04)  # in the order of decoding
    found = np.round(snippet_times(track, 0.0, 4.0, 2, 4) / 0.04).astype(int).reshape(2, 4)
    np.testing.assert_array_equal(found, [[23, 24, 25, 26], [73, 74, 75, 76]])


def test_a_snippet_never_leaves_its_part():
    track = track_of(np.arange(100) * 0.04)
    for first, last in ((0.0, 4.0), (1.0, 2.0), (1.01, 1.79), (3.3, 4.0)):
        found = snippet_times(track, first, last, 6, 16).reshape(6, 16)
        assert found.min() >= first
        assert found.max() < last
        np.testing.assert_allclose(np.diff(found, axis=1), 0.04, atol=1e-9)


def test_a_part_shorter_than_a_snippet_repeats_its_ends():
    track = track_of(np.arange(100) * 0.04)
    found = np.round(snippet_times(track, 1.0, 1.2, 2, 8) / 0.04).astype(int).reshape(2, 8)
    np.testing.assert_array_equal(found, [[25, 25, 26, 27, 28, 29, 29, 29]] * 2)
    np.testing.assert_allclose(snippet_times(track, 1.01, 1.02, 1, 3), 1.0)  # the frame on screen


def test_snippets_of_a_file_are_its_frames(tmp_path):
    """Each frame's grey value is five times its number."""
    from data_prep.frames import read_frames

    film = (np.full((64, 64, 3), 5 * i, np.uint8) for i in range(50))
    write(tmp_path / "a.mp4", frames=film, options={"crf": "0"})
    info = probe(str(tmp_path / "a.mp4"))
    frames, shown, _ = read_frames(info, snippet_times(info.video, 0.0, info.video.end, 2, 5))
    numbers = np.round(frames.mean((1, 2, 3)) / 5).reshape(2, 5)
    np.testing.assert_array_equal(numbers, [[10, 11, 12, 13, 14], [35, 36, 37, 38, 39]])
    np.testing.assert_allclose(shown.reshape(2, 5)[1], np.arange(35, 40) / 25, atol=1e-3)


# Faces between the frames that are searched


def scene(course):
    """Frames that hold their number, and a search that finds a face where `course` has one."""
    searched = []

    def search(frames):
        numbers = frames[:, 0, 0, 0].tolist()
        searched.extend(numbers)
        return [[] if course[i] is None else [fake_face(*course[i], 40)] for i in numbers]

    frames = (
        np.zeros((len(course), 2, 2, 3), np.uint8)
        + np.arange(len(course), dtype=np.uint8)[:, None, None, None]
    )
    return frames, search, searched


def test_a_steady_face_is_searched_for_in_a_few_frames():
    course = [(100 + i, 80 - i) for i in range(16)]
    frames, search, searched = scene(course)
    faces, people = track_snippets(frames, np.arange(16) / 25, 8, search)
    assert people == 1
    assert searched == [0, 4, 7, 8, 12, 15]
    for face, (x, y) in zip(faces, course, strict=True):
        expected = fake_face(x, y, 40)
        np.testing.assert_allclose(face.box, expected.box, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)
        assert face.box.dtype == face.landmarks.dtype == np.float32


def test_frames_between_two_that_disagree_are_searched():
    course = [(100, 80)] * 8
    course[3:6] = [None] * 3  # gone in frame 4, which is searched; 3 and 5 only then
    frames, search, searched = scene(course)
    faces, _ = track_snippets(frames, np.arange(8) / 25, 8, search)
    assert [face is not None for face in faces] == [c is not None for c in course]
    assert sorted(searched) == list(range(8))
    jump = [(100, 80)] * 5 + [(125, 80)] * 3
    frames, search, searched = scene(jump)
    faces, _ = track_snippets(frames, np.arange(8) / 25, 8, search)
    assert sorted(searched) == [0, 4, 5, 6, 7]
    np.testing.assert_allclose([f.box[0] for f in faces], [80] * 5 + [105] * 3, atol=1e-3)


def test_a_frame_that_stands_twice_is_searched_once():
    frames, search, searched = scene([(100, 80)] * 3)
    place = np.array([0, 0, 1, 2, 2, 0, 1, 1, 2, 2])
    faces, _ = track_snippets(frames[place], place / 25, 5, search)
    assert len(faces) == 10
    assert sorted(searched) == [0, 2]
    assert all(face is not None for face in faces)


def test_no_face_at_all():
    frames, search, searched = scene([None] * 8)
    assert track_snippets(frames, np.arange(8) / 25, 8, search) == ([None] * 8, 0)
    assert searched == [i for i in range(8) if i % EVERY == 0 or i == 7]


def test_mix_is_a_straight_line():
    a, b = fake_face(10, 20, 8, 0.9), fake_face(30, 60, 16, 0.8)
    half = mix(a, b, 0.25)
    np.testing.assert_allclose(half.box, [0.75 * x + 0.25 * y for x, y in zip(a.box, b.box, strict=True)])
    assert half.score == pytest.approx(0.875)
    np.testing.assert_array_equal(mix(a, b, 0.0).landmarks, a.landmarks)


def test_interpolated_faces_are_where_a_search_finds_them(shared_data):
    from data_prep.faces.detect import detect_faces
    from data_prep.frames import read_frames

    info = probe(os.path.join(shared_data, "talking_faces", "bbaf2n.mpg"))
    frames, shown, _ = read_frames(info, snippet_times(info.video, 0.0, info.video.end, 2, 8))
    search = lambda frames: detect_faces(frames, min_face=0.12, min_score=0.8)  # noqa: E731
    faces, people = track_snippets(frames, shown, 8, search)
    assert people == 1
    for face, found in zip(faces, search(frames), strict=True):
        side = (face.box[2:] - face.box[:2]).mean()
        assert np.abs(face.landmarks - found[0].landmarks).max() < 0.05 * side


# Whole preparations


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three speakers; two clips with a drawn face, one with sound alone is enough of a mixture."""
    folder = tmp_path_factory.mktemp("drawn")
    for i in range(2):
        clip = render_clip(speaker=i, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=i)
        (folder / f"{i}.mp4").write_bytes(clip)
    write(folder / "2.mp4", frames=ramp(0.2), sound=tone(0.3))
    (folder / "clips.csv").write_text("path,label,speaker\n0.mp4,x,ann\n1.mp4,y,bob\n2.mp4,y,cid\n")
    return str(folder)


@pytest.mark.parametrize("name", SMALL)
def test_prepared_clips_are_those_of_process_clip_and_open_in_tfds(corpus, name, tmp_path):
    settings = SMALL[name]
    summary = prepare(read_corpus("folder", corpus), settings, str(tmp_path), workers=0)
    assert (summary.kept, summary.masked, summary.failed, summary.problems) == (2, 1, (), ())
    dataset, source = open_dataset(str(tmp_path), recipe=name), tfds_source(tmp_path)
    assert PrepSettings.from_dict(dataset.prep["settings"]) == settings
    assert dataset.prep["frames"] == settings.face.frames
    record = dataset.read(0)
    again = process_clip(Clip("0.mp4", os.path.join(corpus, "0.mp4"), 0, "ann"), settings)
    for field in ("spectrogram", "faces", "face_time", "face_box", "face_landmarks", "face_valid"):
        np.testing.assert_array_equal(getattr(record, field), getattr(again, field))
        np.testing.assert_array_equal(getattr(record, field), source[0][field])
    assert record.faces.shape == (settings.face.frames, 24, 24, 3)
    assert record.face_valid.all()
    if name == "cross_attention":
        np.testing.assert_allclose(np.diff(record.face_time.reshape(2, 3), axis=1), 0.04, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_windows_of_a_file_are_prepared_as_a_clip_is(corpus, name):
    path = os.path.join(corpus, "0.mp4")
    record = process_clip(Clip("a", path, -1, "", start=1.0, end=1.6), SMALL[name])
    assert (record.audio_ok, record.video_ok) == (True, True)
    assert record.spectrogram.shape[0] == 61
    assert (record.face_time >= -0.04).all()
    assert (record.face_time < 0.6).all()


def test_a_clip_shorter_than_a_snippet(corpus):
    record = process_clip(
        Clip("a", os.path.join(corpus, "0.mp4"), -1, "", start=1.0, end=1.1),
        recipe_settings("cross_attention", frames=16, snippet=8, face_size=24),
    )
    assert record.face_valid.all()
    assert len(np.unique(record.face_time)) in (2, 3)


def test_by_command_with_other_frames(corpus, tmp_path):
    line = [sys.executable, os.path.join(ROOT, "launch", "prepare.py"), "--corpus=folder"]
    line += [f"--source={corpus}", f"--output={tmp_path}/out", "--recipe=cross_attention", "--workers=1"]
    wrong = subprocess.run([*line, "--frames=5", "--snippet=2"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode != 0
    assert "frames 5, snippet 2: expected" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    done = subprocess.run(
        [*line, "--frames=4", "--snippet=2", "--face_size=20"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    face = open_dataset(str(tmp_path / "out"), recipe="cross_attention").prep["settings"]["face"]
    assert FaceSettings(**face) == dataclasses.replace(
        RECIPES["cross_attention"].face, frames=4, snippet=2, size=20
    )
