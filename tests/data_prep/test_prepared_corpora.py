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
from tests.data_prep import corpus_trees as trees
from tests.data_prep.media_files import write
from tests.data_prep.small_corpus import manifest

SETTINGS = PrepSettings(face=FaceSettings(frames=2, size=32))


def film(speaker):
    return render_clip(speaker=speaker, p=0, s_f=0, s_v=speaker % 2, damage="", corpus_seed=0, seed=speaker)


def decoded(data):
    """Frames [n h w 3] and mono sound of a film."""
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(frames), sound


@pytest.fixture(scope="module")
def films():
    """Frames and sound of two people."""
    return [decoded(film(1)), decoded(film(2))]


def writer(frames, sound):
    """Writes the film to a path in the container of its ending, each time a bit shorter: no two are equal."""
    written = itertools.count(1)

    def put(path):
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        write(path, frames=iter(frames[: -next(written)]), sound=sound, codec=codec, rate=16_000)

    return put


def crema(folder, put):
    trees.make_crema_d(folder, put, names=["1001_DFA_ANG_XX", "1002_IEO_SAD_HI", "1003_TIE_NEU_XX"])


def ravdess(folder, put):
    takes = ("01-03-01-01-01-01", "01-02-01-01-01-02", "01-05-02-01-02-03")
    trees.make_ravdess(folder, put, takes=takes)


def enterface(folder, put):
    names = (f"subject {i}/anger/sentence 1/s{i}_an_1.avi" for i in (1, 2, 3))
    trees.places(folder, names, put)


TREES = {
    "ravdess": (ravdess, "grouped_3fold"),
    "crema_d": (crema, "grouped_3fold"),
    "afew": (lambda folder, put: trees.make_afew(folder, put, counts=(4, 2)), "afew_official"),
    "enterface05": (enterface, "grouped_3fold"),
    "baum1s": (lambda folder, put: trees.make_baum1s(folder, put, clips=3), "grouped_3fold"),
}


@pytest.mark.parametrize("name", TREES)
def test_a_corpus_becomes_records_with_faces_and_sound(films, name, tmp_path):
    make, protocol = TREES[name]
    source, output = tmp_path / "source", tmp_path / "records"
    source.mkdir()
    make(source, writer(*films[0]))
    corpus = read_corpus(name, str(source))
    summary = prepare(corpus, SETTINGS, str(output), workers=0)
    assert (summary.failed, summary.problems) == ((), ())
    assert summary.complete == len(corpus.clips)
    prep = json.loads((output / "prep.json").read_text())
    assert prep["class_map"] == corpus.class_map
    assert any("expected" in note for note in prep["notes"])  # a small part of what is distributed
    stored = json.loads((output / "protocols" / f"{protocol}.json").read_text())
    assert sorted(stored["speakers"]) == sorted({clip.speaker for clip in corpus.clips})
    assert (output / "splits" / protocol / "fold_0.json").exists()


@pytest.fixture(scope="module")
def dialogue(films):
    """A picture with one film on the left and the other on the right, and the sound of both."""
    (left, voice), (right, other) = films
    n = min(len(left), len(right))
    frames = np.concatenate([left[:n], right[:n]], axis=2)
    m = min(len(voice), len(other))
    return frames, (voice[:m] + other[:m]) / 2


def test_iemocap_shows_the_speaker_of_each_utterance(dialogue, tmp_path):
    frames, sound = dialogue
    source, output = tmp_path / "source", tmp_path / "records"
    utterances = [("Ses01F_impro01", "F", "neu"), ("Ses01F_impro01", "M", "ang")]
    trees.make_iemocap(source, writer(frames, sound), utterances=utterances, seconds=0.9)
    summary = prepare(read_corpus("iemocap", str(source)), SETTINGS, str(output), workers=0)
    assert (summary.complete, summary.failed, summary.problems) == (2, (), ())
    middle = frames.shape[2] / 2
    dataset = open_dataset(str(output))
    left, right = (dataset.read(i) for i in range(2))
    assert (left.speaker, right.speaker) == ("Ses01F", "Ses01M")
    assert np.all(left.face_box[:, 2] < middle)
    assert np.all(right.face_box[:, 0] > middle)
    assert np.all(right.face_landmarks[..., 0] > middle)
    assert "people" not in manifest(output)["Ses01F_impro01_F000"]["reason"]
