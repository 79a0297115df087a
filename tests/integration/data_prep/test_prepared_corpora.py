"""Each corpus as distributed, with a few synthetic films under the real names, to records."""

import io
import itertools
import json

import av
import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings
from data_prep.synth.clip import render_clip
from emofuse_jax.data.dataset import open_dataset
from tests.support import corpus_trees as trees
from tests.support.media_files import write_media
from tests.support.small_corpus import manifest_by_clip

SETTINGS = PrepSettings(face=FaceSettings(frames=2, size=32))


def render_speaker(speaker):
    return render_clip(speaker=speaker, p=0, s_f=0, s_v=speaker % 2, damage="", corpus_seed=0, seed=speaker)


def decode_video(data):
    """Frames [n h w 3] and mono sound of a film."""
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(frames), audio


@pytest.fixture(scope="module")
def decoded_videos():
    """Frames and sound of two people."""
    return [decode_video(render_speaker(1)), decode_video(render_speaker(2))]


def make_file_writer(frames, audio):
    """Writes the film to a path in the container of its ending, each time a bit shorter: no two are equal."""
    clip_numbers = itertools.count(1)

    def write_file(path):
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        write_media(
            path, frames=iter(frames[: -next(clip_numbers)]), audio=audio, video_codec=codec, rate=16_000
        )

    return write_file


def make_small_crema_d(folder, write_file):
    trees.make_crema_d(folder, write_file, names=["1001_DFA_ANG_XX", "1002_IEO_SAD_HI", "1003_TIE_NEU_XX"])


def make_small_ravdess(folder, write_file):
    takes = ("01-03-01-01-01-01", "01-02-01-01-01-02", "01-05-02-01-02-03")
    trees.make_ravdess(folder, write_file, takes=takes)


def make_small_enterface05(folder, write_file):
    names = (f"subject {i}/anger/sentence 1/s{i}_an_1.avi" for i in (1, 2, 3))
    trees.write_files(folder, names, write_file)


CORPUS_TREES = {
    "ravdess": (make_small_ravdess, "grouped_3fold"),
    "crema_d": (make_small_crema_d, "grouped_3fold"),
    "afew": (lambda folder, write_file: trees.make_afew(folder, write_file, counts=(4, 2)), "afew_official"),
    "enterface05": (make_small_enterface05, "grouped_3fold"),
    "baum1s": (
        lambda folder, write_file: trees.make_baum1s(folder, write_file, num_clips=3),
        "grouped_3fold",
    ),
}


@pytest.mark.parametrize("name", CORPUS_TREES)
def test_a_corpus_becomes_records_with_faces_and_sound(decoded_videos, name, tmp_path):
    make_tree, protocol = CORPUS_TREES[name]
    source, output = tmp_path / "source", tmp_path / "records"
    source.mkdir()
    make_tree(source, make_file_writer(*decoded_videos[0]))
    corpus = read_corpus(name, str(source))
    summary = prepare(corpus, SETTINGS, str(output), workers=0)
    assert (summary.failed, summary.problems) == ((), ())
    assert summary.num_complete == len(corpus.clips)
    prep = json.loads((output / "prep.json").read_text())
    assert prep["class_map"] == corpus.class_map
    assert any("expected" in note for note in prep["notes"])  # a small part of what is distributed
    stored = json.loads((output / "protocols" / f"{protocol}.json").read_text())
    assert sorted(stored["speakers"]) == sorted({clip.speaker for clip in corpus.clips})
    assert (output / "splits" / protocol / "fold_0.json").exists()


@pytest.fixture(scope="module")
def dialogue(decoded_videos):
    """A picture with one film on the left and the other on the right, and the sound of both."""
    (left, left_audio), (right, right_audio) = decoded_videos
    num_frames = min(len(left), len(right))
    frames = np.concatenate([left[:num_frames], right[:num_frames]], axis=2)
    num_samples = min(len(left_audio), len(right_audio))
    return frames, (left_audio[:num_samples] + right_audio[:num_samples]) / 2


def test_iemocap_shows_the_speaker_of_each_utterance(dialogue, tmp_path):
    frames, audio = dialogue
    source, output = tmp_path / "source", tmp_path / "records"
    utterances = [("Ses01F_impro01", "F", "neu"), ("Ses01F_impro01", "M", "ang")]
    trees.make_iemocap(source, make_file_writer(frames, audio), utterances=utterances, seconds=0.9)
    summary = prepare(read_corpus("iemocap", str(source)), SETTINGS, str(output), workers=0)
    assert (summary.num_complete, summary.failed, summary.problems) == (2, (), ())
    middle = frames.shape[2] / 2
    dataset = open_dataset(str(output))
    left, right = (dataset.read(i) for i in range(2))
    assert (left.speaker, right.speaker) == ("Ses01F", "Ses01M")
    assert np.all(left.face_box[:, 2] < middle)
    assert np.all(right.face_box[:, 0] > middle)
    assert np.all(right.face_landmarks[..., 0] > middle)
    assert "people" not in manifest_by_clip(output)["Ses01F_impro01_F000"]["reason"]
