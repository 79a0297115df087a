"""A small corpus, its preparation, and ways to look at the result; shared by the tests of preparing."""

import csv
import os
import pathlib

import numpy as np

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.utils.files import file_sha256
from tests.support.media_files import ramp_frames, tone, write_media, write_wav

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=32))


def make_source(folder, num_speakers=6, num_takes=6):
    """Sound of many speakers, a film of each without a face, a silent take, and three broken files."""
    folder.mkdir(parents=True)
    rng, csv_rows = np.random.default_rng(0), ["path,label,speaker"]
    for speaker in range(num_speakers):
        for take in range(num_takes):
            audio = tone(rng.uniform(0.1, 0.4), 200 + 40 * speaker + take, rate=16_000) * rng.uniform(0.2, 1)
            write_wav(folder / f"s{speaker}_{take}.wav", audio)
            csv_rows.append(f"s{speaker}_{take}.wav,{['low', 'high'][take % 2]},speaker {speaker}")
    write_media(folder / "film.mp4", frames=ramp_frames(0.5), audio=tone(0.5))
    write_wav(folder / "silent.wav", np.zeros(8000))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film")
    (folder / "half.mp4").write_bytes((folder / "film.mp4").read_bytes()[:3000])
    for name in ("film.mp4", "silent.wav", "empty.mp4", "text.mp4", "half.mp4", "absent.mp4"):
        csv_rows.append(f"{name},low,speaker 0")
    (folder / "clips.csv").write_text("\n".join(csv_rows) + "\n")
    return str(folder)


def run_prepare(source, output, **options):
    return prepare(read_corpus("folder", source), SETTINGS, str(output), shards=5, **options)


def manifest_by_clip(output):
    with open(os.path.join(output, "manifest.csv"), newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def file_checksums(output):
    """Checksum of each file of a preparation."""
    output = pathlib.Path(output)
    return {str(p.relative_to(output)): file_sha256(p) for p in sorted(output.rglob("*")) if p.is_file()}


def open_tfds_source(output):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(output)).as_data_source("clips")
