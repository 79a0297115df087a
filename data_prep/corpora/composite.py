"""Voices of one corpus with faces of another, paired by label: a stress test of fusion on real signals.

COMPOSITE: nobody in such a clip exists, sound and lips do not fit, and a score on it says nothing about
people; every report and card is marked so. Use it to see whether a fusion learns from two real streams at
all, how it weighs them, and what it does when one is lost.

A composite person is one voice speaker and one face speaker, of the same sex where both are known; no voice
and no face belongs to two persons, so that a split by speaker keeps the identities of both sides apart. What
had no partner is left out and counted. `emofuse composite` writes the films (the picture is copied, the sound
is FLAC, both begin at 0 and end with the shorter one), `composite.csv`, and `composite.json`, which tells
where each side came from. `emofuse prepare --corpus=composite` reads them.
"""

import collections
import csv
import dataclasses
import io
import json
import os
import urllib.parse

import av
import numpy as np

from data_prep.corpora import folder
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import MediaError, open_media, probe_media
from emofuse_jax.data.writing.corpus import Clip, Corpus
from emofuse_jax.utils.files import write_atomic, write_json

TABLE, SOURCES = "composite.csv", "composite.json"
RATE = 16_000
"""Of the sound that is written; every recipe reads 16 kHz."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One clip to be made."""

    name: str
    label: str
    speaker: str
    voice: Clip
    face: Clip


def read_corpus(source: str) -> Corpus:
    """The films of a directory that `make` wrote; its notes say what they were made of."""
    about = os.path.join(source, SOURCES)
    try:
        with open(about, encoding="utf-8") as file:
            made = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{about}: not there; run emofuse composite first") from None
    corpus = folder.read_corpus(os.path.join(source, TABLE))
    synthetic = "demo" in (made["voice_corpus"], made["face_corpus"])
    name = "composite_demo" if synthetic else "composite"
    return dataclasses.replace(corpus, name=name, notes=(made["note"], *made["left_out"]))


def pair(voices: Corpus, faces: Corpus, seed: int) -> tuple[list[Pair], list[str]]:
    """The clips to make, and what had no partner.

    Raises ValueError where fewer than two classes or three persons are common to both.
    """
    classes = [name for name in voices.classes if name in faces.classes]
    people = persons(voices, faces, seed)
    if len(classes) < 2 or len(people) < 3:
        raise ValueError(
            f"{voices.name} and {faces.name}: {len(classes)} classes and {len(people)} persons in common,"
            " expected at least 2 and 3; choose class maps that meet"
        )
    rng, pairs = np.random.default_rng(seed), []
    sides = [by_speaker_and_label(corpus) for corpus in (voices, faces)]
    for voice, face in people:
        for label in classes:
            mine = [side[who, label] for side, who in zip(sides, (voice, face), strict=True)]
            drawn = [[clips[i] for i in rng.permutation(len(clips))] for clips in mine]
            for i, (one, other) in enumerate(zip(*drawn, strict=False)):
                name = urllib.parse.quote(f"{voice}+{face}_{label}_{i:03d}", safe="+")
                pairs.append(Pair(name, label, f"{voice}+{face}", one, other))
    left = [
        f"{corpus.name}: {len(corpus.clips) - len(pairs)} of {len(corpus.clips)} clips without a partner"
        for corpus in (voices, faces)
    ]
    return pairs, left


def persons(voices: Corpus, faces: Corpus, seed: int) -> list[tuple[str, str]]:
    """Pairs of a voice's and a face's speaker, each in one pair at most; those of one sex first."""
    rng, found = np.random.default_rng(seed), []
    rest = []
    for corpus in (voices, faces):
        names = sorted({clip.speaker for clip in corpus.clips})
        rest.append([names[i] for i in rng.permutation(len(names))])
    for sex in ("f", "m"):
        same = [
            [name for name in names if corpus.sex.get(name) == sex]
            for corpus, names in zip((voices, faces), rest, strict=True)
        ]
        found += zip(*same, strict=False)
    taken = [{pair[side] for pair in found} for side in (0, 1)]
    found += zip(*([n for n in rest[side] if n not in taken[side]] for side in (0, 1)), strict=False)
    return sorted(found)


def by_speaker_and_label(corpus: Corpus) -> dict[tuple[str, str], list[Clip]]:
    """Labelled clips of each speaker and class."""
    found: dict = collections.defaultdict(list)
    for clip in corpus.clips:
        if clip.label >= 0:
            found[clip.speaker, corpus.classes[clip.label]].append(clip)
    return found


def make(voices: Corpus, faces: Corpus, output: str, seed: int) -> tuple[int, list[str]]:
    """Writes the films and their table; started again, it makes those that are missing.

    A pair whose media cannot be read is left out and told. Returns the number of films, and what was left
    out.
    """
    pairs, left_out = pair(voices, faces, seed)
    os.makedirs(output, exist_ok=True)
    rows, sources = [], {}
    for one in pairs:
        film = f"{one.name}.mkv"
        try:
            if not os.path.exists(os.path.join(output, film)):
                write_film(one, os.path.join(output, film))
        except MediaError as error:
            left_out.append(f"{one.voice.path} with {one.face.path}: {error}")
            continue
        rows.append((film, one.label, one.speaker))
        sources[film] = {
            side: {"clip_id": clip.clip_id, "speaker": clip.speaker, "path": clip.path}
            for side, clip in (("voice", one.voice), ("face", one.face))
        }
    note = f"COMPOSITE of voices of {voices.name} and faces of {faces.name}, seed {seed}"
    about = {"note": note, "voice_corpus": voices.name, "face_corpus": faces.name, "seed": seed}
    write_json(os.path.join(output, SOURCES), about | {"left_out": left_out, "films": sources})
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("path", "label", "speaker"), *rows])
    write_atomic(os.path.join(output, TABLE), table.getvalue().encode())
    return len(rows), left_out


def write_film(one: Pair, path: str) -> None:
    """Picture and sound of a pair as one film, whole or not at all; MediaError where a side can't be read."""
    face, voice = probe_media(one.face.path), probe_media(one.voice.path)
    if one.face.start is not None or one.face.end is not None or one.face.half:
        raise MediaError("the face is a part of a film, which can't be copied; cut the film first")
    if face.video is None or voice.audio is None:
        raise MediaError("no picture" if face.video is None else "no sound")
    start = one.voice.start or 0.0
    end = min(voice.audio.end, one.voice.end if one.voice.end is not None else voice.audio.end)
    seconds = min(end - start, face.video.end)
    blocks = list(read_audio_blocks(voice, start, start + seconds, RATE))
    temporary = f"{path}.part"
    with open_media(face.path) as source, av.open(temporary, "w", format="matroska") as film:
        picture = film.add_stream_from_template(source.streams.video[0])
        sound = film.add_stream("flac", rate=RATE, layout="mono")
        mux_sound(film, sound, np.concatenate(blocks))
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is None or (packet.pts or 0) * packet.time_base - face.start_time >= seconds:
                continue
            packet.stream = picture
            film.mux(packet)
    os.replace(temporary, path)


def mux_sound(film, stream, samples: np.ndarray) -> None:
    """Encodes mono samples in -1 to 1 from second 0 on."""
    whole = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    for first in range(0, len(whole), 4096):
        frame = av.AudioFrame.from_ndarray(whole[None, first : first + 4096], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, first
        film.mux(stream.encode(frame))
    film.mux(stream.encode(None))
