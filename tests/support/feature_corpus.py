"""A few drawn talking faces as real media files, and their records with frozen encoders."""

import dataclasses

from data_prep.corpora import read_corpus
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.prepare import prepare
from data_prep.probe_encoders import with_encoders
from data_prep.settings import FaceSettings, PrepSettings
from data_prep.synth.clip import render_clip
from tests.support.media_files import tone, write_wav
from tests.support.onnx_models import face_encoder, spectrogram_encoder, waveform_encoder

FACES = FaceSettings(frames=2, size=24)


def make_clips(folder, num_speakers=3, num_takes=2):
    """Films of `num_speakers`, and a sound without a picture; gives the CSV's path."""
    folder.mkdir(parents=True)
    csv_rows = ["path,label,speaker"]
    for speaker in range(num_speakers):
        for take in range(num_takes):
            name = f"s{speaker}_{take}.mp4"
            video_bytes = render_clip(
                speaker=90 + speaker, p=take, s_f=0, s_v=take, damage="", corpus_seed=0, seed=take
            )
            (folder / name).write_bytes(video_bytes)
            csv_rows.append(f"{name},{['low', 'high'][take % 2]},s{speaker}")
    write_wav(folder / "voice.wav", tone(0.5, rate=16_000))
    csv_rows.append("voice.wav,low,s0")
    (folder / "clips.csv").write_text("\n".join(csv_rows) + "\n")
    return str(folder / "clips.csv")


def make_encoders(folder, audio_input="waveform", **files):
    """An audio and a face encoder in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    make_audio_encoder = {"waveform": waveform_encoder, "spectrogram": spectrogram_encoder}[audio_input]
    return EncoderFiles(
        make_audio_encoder(folder / "voice.onnx"), face_encoder(folder / "face.onnx"), **files
    )


def run_prepare(source, output, files, tensors, recipe="features", workers=0, frames=2):
    """Small records of a folder corpus."""
    settings = with_encoders(
        PrepSettings(recipe, face=dataclasses.replace(FACES, frames=frames)), files, tensors
    )
    corpus = read_corpus("folder", source)
    return prepare(corpus, settings, str(output), workers=workers, shards=2, encoders=files)
