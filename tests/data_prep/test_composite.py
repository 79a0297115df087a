"""Composite corpora: whom they pair, what the films hold, and that they say what they are."""

import dataclasses
import json

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.corpora.composite import make_composite, pair_clips, pair_speakers
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import probe_media
from data_prep.media.video_clip import VideoClip, read_clip_frames
from emofuse_jax.data.writing.corpus import Clip, Corpus
from emofuse_jax.scoring.result_labels import corpus_marks
from tests.data_prep.media_files import ramp, tone, write, write_wav

CLASSES = ("calm", "angry", "sad")


def corpus(name, speakers, takes, suffix, folder, classes=CLASSES, sex=None):
    clips = tuple(
        Clip(f"{s}_{c}_{t}", str(folder / f"{s}_{c}_{t}{suffix}"), classes.index(c), s)
        for s in speakers
        for c in classes
        for t in range(takes)
    )
    return Corpus(name, classes, clips, sex or {}, ())


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Three voices of five takes a class, four faces of two; classes in another order, one not shared."""
    folder = tmp_path_factory.mktemp("sides")
    voices = corpus("voices", ("v1", "v2", "v3"), 5, ".wav", folder)
    faces = corpus("faces", ("f1", "f2", "f3", "f4"), 2, ".mp4", folder, ("sad", "calm", "happy"))
    rng = np.random.default_rng(0)
    for i, clip in enumerate(voices.clips):
        write_wav(folder / clip.path, tone(rng.uniform(0.3, 0.9), 200 + 10 * i, rate=16_000))
    for clip in faces.clips:
        write(folder / clip.path, frames=ramp(0.6), sound=tone(0.6))
    return voices, faces


def test_no_identity_is_in_two_persons(sides):
    pairs, left = pair_clips(*sides, seed=3)
    people = {one.speaker for one in pairs}
    assert len(people) == 3
    for side in ("voice", "face"):
        owner = {getattr(one, side).speaker: one.speaker for one in pairs}
        assert all(owner[getattr(one, side).speaker] == one.speaker for one in pairs)
        assert len({getattr(one, side).clip_id for one in pairs}) == len(pairs)
    assert len(pairs) == 3 * 2 * 2  # persons, classes in common, takes of the side that has fewer
    for one in pairs:
        assert sides[0].classes[one.voice.label] == sides[1].classes[one.face.label] == one.label
    assert left == ["voices: 33 of 45 clips without a partner", "faces: 12 of 24 clips without a partner"]
    assert pair_clips(*sides, seed=3)[0] == pairs
    assert pair_clips(*sides, seed=4)[0] != pairs


def test_sex_is_matched_where_it_is_known(sides):
    voices = dataclasses.replace(sides[0], sex={"v1": "f", "v2": "m", "v3": "m"})
    faces = dataclasses.replace(sides[1], sex={"f1": "m", "f2": "m", "f3": "f", "f4": "f"})
    for seed in range(5):
        for voice, face in pair_speakers(voices, faces, seed):
            assert voices.sex[voice] == faces.sex[face]
    assert (
        len(pair_speakers(dataclasses.replace(voices, sex=dict.fromkeys(["v1", "v2", "v3"], "f")), faces, 0))
        == 3
    )


def test_a_film_has_the_sound_of_one_and_the_picture_of_the_other(sides, tmp_path):
    count, left = make_composite(*sides, str(tmp_path / "films"), seed=0)
    assert (count, len(left)) == (12, 2)
    made = json.loads((tmp_path / "films" / "composite.json").read_text())
    assert made["note"] == "COMPOSITE of voices of voices and faces of faces, seed 0"
    for name, source in list(made["films"].items())[:4]:
        film, voice, face = (
            probe_media(str(p))
            for p in (tmp_path / "films" / name, source["voice"]["path"], source["face"]["path"])
        )
        seconds = min(voice.audio.end, face.video.end)
        assert film.audio.end == pytest.approx(seconds, abs=0.01)
        assert film.video.end == pytest.approx(seconds, abs=0.041)
        heard, said = (np.concatenate(list(read_audio_blocks(x, 0, seconds, 16_000))) for x in (film, voice))
        np.testing.assert_allclose(heard, said[: len(heard)], atol=2 / 32768)
        times = np.array([0.05, seconds / 2, seconds - 0.05])
        shown, drawn = (read_clip_frames(VideoClip(x, 0.0, seconds), times) for x in (film, face))
        np.testing.assert_array_equal(shown.frames, drawn.frames)
        np.testing.assert_allclose(shown.times, drawn.times, atol=1e-3)


def test_made_again_it_makes_only_what_is_missing_and_is_read_with_its_mark(sides, tmp_path):
    folder = tmp_path / "films"
    make_composite(*sides, str(folder), seed=0)
    films = sorted(folder.glob("*.mkv"))
    films[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in films[1:]}
    make_composite(*sides, str(folder), seed=0)
    assert {path: path.stat().st_mtime_ns for path in films[1:]} == before
    assert films[0].exists()
    found = read_corpus("composite", str(folder))
    assert found.name == "composite"
    assert found.classes == ("calm", "sad")
    assert len(found.clips) == 12
    assert "COMPOSITE of voices" in found.notes[0]
    assert corpus_marks(found.name)[0].startswith("COMPOSITE")


def test_one_that_cannot_be_read_is_told_and_the_others_are_made(sides, tmp_path):
    voices, faces = sides
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    clips = tuple(
        dataclasses.replace(clip, path=str(broken)) if i == 0 else clip for i, clip in enumerate(voices.clips)
    )
    few = dataclasses.replace(voices, clips=clips[:2] + clips[5:])
    count, left = make_composite(few, faces, str(tmp_path / "films"), seed=0)
    assert count == 11
    assert str(broken) in left[-1]
    assert not list((tmp_path / "films").glob("*.part"))


def test_synthetic_sides_are_told(sides, tmp_path):
    make_composite(sides[0], dataclasses.replace(sides[1], name="demo"), str(tmp_path), seed=0)
    assert read_corpus("composite", str(tmp_path)).name == "composite_demo"
    assert [mark.split(":")[0] for mark in corpus_marks("composite_demo")] == ["COMPOSITE", "SYNTHETIC"]


def test_too_little_in_common_is_one_line(sides, tmp_path):
    other = dataclasses.replace(sides[1], classes=("x", "calm", "y"))
    with pytest.raises(ValueError, match="voices and faces: 1 classes and 3 persons in common"):
        pair_clips(sides[0], other, seed=0)
    with pytest.raises(FileNotFoundError, match="run emofuse composite first"):
        read_corpus("composite", str(tmp_path))
