"""A few drawn talking faces as real media files, and their records with frozen encoders."""

import dataclasses

from data_prep.corpora import read_corpus
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.prepare import prepare
from data_prep.probe_encoders import with_encoders
from data_prep.settings import FaceSettings, PrepSettings
from data_prep.synth.clip import render_clip
from tests.data_prep.media_files import tone, write_wav
from tests.data_prep.onnx_models import face_encoder, spectrogram_encoder, waveform_encoder

FACES = FaceSettings(frames=2, size=24)


def make_clips(folder, speakers=3, takes=2):
    """Films of `speakers`, and a sound without a picture; gives the CSV's path."""
    folder.mkdir(parents=True)
    table = ["path,label,speaker"]
    for speaker in range(speakers):
        for take in range(takes):
            name = f"s{speaker}_{take}.mp4"
            film = render_clip(
                speaker=90 + speaker, p=take, s_f=0, s_v=take, damage="", corpus_seed=0, seed=take
            )
            (folder / name).write_bytes(film)
            table.append(f"{name},{['low', 'high'][take % 2]},s{speaker}")
    write_wav(folder / "voice.wav", tone(0.5, rate=16_000))
    table.append("voice.wav,low,s0")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    return str(folder / "clips.csv")


def make_encoders(folder, sound="waveform", **files):
    """An audio and a face encoder in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    make = {"waveform": waveform_encoder, "spectrogram": spectrogram_encoder}[sound]
    return EncoderFiles(make(folder / "voice.onnx"), face_encoder(folder / "face.onnx"), **files)


def run_prepare(source, output, files, tensors, recipe="features", workers=0, frames=2):
    """Small records of a folder corpus."""
    settings = with_encoders(
        PrepSettings(recipe, face=dataclasses.replace(FACES, frames=frames)), files, tensors
    )
    corpus = read_corpus("folder", source)
    return prepare(corpus, settings, str(output), workers=workers, shards=2, encoders=files)
