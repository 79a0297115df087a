"""Composite corpora: whom they pair, what the films hold, and that they say what they are."""

import dataclasses
import json

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.corpora.composite import make_composite, pair_clips, pair_speakers
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import MediaError, probe_media
from data_prep.media.video_clip import VideoClip, read_clip_frames
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.scoring.result_marks import corpus_marks
from tests.support.media_files import ramp_frames, tone, write_media, write_wav

CLASSES = ("calm", "angry", "sad")


def make_corpus(name, speakers, takes, suffix, folder, classes=CLASSES, sex=None):
    clips = tuple(
        MediaClip(f"{s}_{c}_{t}", str(folder / f"{s}_{c}_{t}{suffix}"), classes.index(c), s)
        for s in speakers
        for c in classes
        for t in range(takes)
    )
    return Corpus(name, classes, clips, sex or {}, ())


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Three voices of five takes a class, four faces of two; classes in another order, one not shared."""
    folder = tmp_path_factory.mktemp("sides")
    voices = make_corpus("voices", ("v1", "v2", "v3"), 5, ".wav", folder)
    faces = make_corpus("faces", ("f1", "f2", "f3", "f4"), 2, ".mp4", folder, ("sad", "calm", "happy"))
    rng = np.random.default_rng(0)
    for i, clip in enumerate(voices.clips):
        write_wav(folder / clip.path, tone(rng.uniform(0.3, 0.9), 200 + 10 * i, rate=16_000))
    for clip in faces.clips:
        write_media(folder / clip.path, frames=ramp_frames(0.6), audio=tone(0.6))
    return voices, faces


def test_no_identity_is_in_two_persons(sides):
    pairs, unpaired_notes = pair_clips(*sides, seed=3)
    speakers = {pair.speaker for pair in pairs}
    assert len(speakers) == 3
    for side in ("voice", "face"):
        composite_speakers = {getattr(pair, side).speaker: pair.speaker for pair in pairs}
        assert all(composite_speakers[getattr(pair, side).speaker] == pair.speaker for pair in pairs)
        assert len({getattr(pair, side).clip_id for pair in pairs}) == len(pairs)
    assert len(pairs) == 3 * 2 * 2  # persons, classes in common, takes of the side that has fewer
    for pair in pairs:
        assert sides[0].classes[pair.voice.label] == sides[1].classes[pair.face.label] == pair.label
    assert unpaired_notes == [
        "voices: 33 of 45 clips without a partner",
        "faces: 12 of 24 clips without a partner",
    ]
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
    num_clips, unpaired_notes = make_composite(*sides, str(tmp_path / "films"), seed=0)
    assert (num_clips, len(unpaired_notes)) == (12, 2)
    composite_json = json.loads((tmp_path / "films" / "composite.json").read_text())
    assert composite_json["note"] == "COMPOSITE of voices of voices and faces of faces, seed 0"
    for name, source in list(composite_json["films"].items())[:4]:
        composite_media, voice_media, face_media = (
            probe_media(str(p))
            for p in (tmp_path / "films" / name, source["voice"]["path"], source["face"]["path"])
        )
        seconds = min(voice_media.audio.end, face_media.video.end)
        assert composite_media.audio.end == pytest.approx(seconds, abs=0.01)
        assert composite_media.video.end == pytest.approx(seconds, abs=0.041)
        composite_audio, voice_audio = (
            np.concatenate(list(read_audio_blocks(x, 0, seconds, 16_000)))
            for x in (composite_media, voice_media)
        )
        np.testing.assert_allclose(composite_audio, voice_audio[: len(composite_audio)], atol=2 / 32768)
        times = np.array([0.05, seconds / 2, seconds - 0.05])
        composite_frames, face_frames = (
            read_clip_frames(VideoClip(x, 0.0, seconds), times) for x in (composite_media, face_media)
        )
        np.testing.assert_array_equal(composite_frames.frames, face_frames.frames)
        np.testing.assert_allclose(composite_frames.times, face_frames.times, atol=1e-3)


def test_made_again_it_makes_only_what_is_missing_and_is_read_with_its_mark(sides, tmp_path):
    folder = tmp_path / "films"
    make_composite(*sides, str(folder), seed=0)
    videos = sorted(folder.glob("*.mkv"))
    videos[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in videos[1:]}
    make_composite(*sides, str(folder), seed=0)
    assert {path: path.stat().st_mtime_ns for path in videos[1:]} == before
    assert videos[0].exists()
    corpus = read_corpus("composite", str(folder))
    assert corpus.name == "composite"
    assert corpus.classes == ("calm", "sad")
    assert len(corpus.clips) == 12
    assert "COMPOSITE of voices" in corpus.notes[0]
    assert corpus_marks(corpus.name)[0].startswith("COMPOSITE")


def test_an_unreadable_clip_is_reported_and_the_others_are_made(sides, tmp_path):
    voices, faces = sides
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    clips = tuple(
        dataclasses.replace(clip, path=str(broken)) if i == 0 else clip for i, clip in enumerate(voices.clips)
    )
    fewer_voices = dataclasses.replace(voices, clips=clips[:2] + clips[5:])
    num_clips, notes = make_composite(fewer_voices, faces, str(tmp_path / "films"), seed=0)
    assert num_clips == 11
    assert str(broken) in notes[-1]
    assert not list((tmp_path / "films").glob("*.part"))


def test_a_film_that_fails_half_way_leaves_no_file(sides, tmp_path, monkeypatch):
    def fail(*_):
        raise MediaError("damaged")

    monkeypatch.setattr("data_prep.corpora.composite.mux_audio", fail)
    num_clips, _ = make_composite(*sides, str(tmp_path), seed=0)
    assert num_clips == 0
    assert not list(tmp_path.glob("*.mkv*"))


def test_synthetic_sides_are_marked(sides, tmp_path):
    make_composite(sides[0], dataclasses.replace(sides[1], name="demo"), str(tmp_path), seed=0)
    assert read_corpus("composite", str(tmp_path)).name == "composite_demo"
    assert [mark.split(":")[0] for mark in corpus_marks("composite_demo")] == ["COMPOSITE", "SYNTHETIC"]


def test_a_negative_seed_is_named(sides, tmp_path):
    with pytest.raises(ValueError, match=r"^seed=-1: expected 0 or a larger number"):
        make_composite(*sides, str(tmp_path), seed=-1)


def test_too_little_in_common_is_one_line(sides, tmp_path):
    other = dataclasses.replace(sides[1], classes=("x", "calm", "y"))
    with pytest.raises(ValueError, match=r"^voices and faces: 1 classes in common, .* and 3 pairs"):
        pair_clips(sides[0], other, seed=0)
    with pytest.raises(FileNotFoundError, match="run emofuse composite first"):
        read_corpus("composite", str(tmp_path))
