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
import contextlib
import csv
import dataclasses
import io
import json
import os
import urllib.parse
from collections.abc import Iterator

import av
import numpy as np

from data_prep.corpora import folder
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import MediaError, open_media, probe_media
from emofuse_jax.data.writing.corpus import Clip, Corpus
from emofuse_jax.utils.files import write_atomic, write_json

TABLE_FILE, SOURCES_FILE = "composite.csv", "composite.json"
SAMPLE_RATE = 16_000
"""Of the sound that is written; every recipe reads 16 kHz."""


@dataclasses.dataclass(frozen=True)
class ClipPair:
    """One clip to be made."""

    name: str
    label: str
    speaker: str
    voice: Clip
    face: Clip


def read_corpus(source: str) -> Corpus:
    """The films of a directory that `make_composite` wrote; its notes say what they were made of."""
    sources_path = os.path.join(source, SOURCES_FILE)
    try:
        with open(sources_path, encoding="utf-8") as file:
            metadata = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{sources_path}: not there; run emofuse composite first") from None
    corpus = folder.read_corpus(os.path.join(source, TABLE_FILE))
    is_synthetic = "demo" in (metadata["voice_corpus"], metadata["face_corpus"])
    name = "composite_demo" if is_synthetic else "composite"
    return dataclasses.replace(corpus, name=name, notes=(metadata["note"], *metadata["left_out"]))


def pair_clips(voice_corpus: Corpus, face_corpus: Corpus, seed: int) -> tuple[list[ClipPair], list[str]]:
    """The clips to make, and what had no partner.

    Raises ValueError where fewer than two classes or three persons are common to both.
    """
    classes = [name for name in voice_corpus.classes if name in face_corpus.classes]
    speaker_pairs = pair_speakers(voice_corpus, face_corpus, seed)
    if len(classes) < 2 or len(speaker_pairs) < 3:
        raise ValueError(
            f"{voice_corpus.name} and {face_corpus.name}: {len(classes)} classes and"
            f" {len(speaker_pairs)} persons in common,"
            " expected at least 2 and 3; choose class maps that meet"
        )
    rng, pairs = np.random.default_rng(seed), []
    grouped_clips = [group_by_speaker_and_label(corpus) for corpus in (voice_corpus, face_corpus)]
    for voice_speaker, face_speaker in speaker_pairs:
        for label in classes:
            candidates = [
                groups[speaker, label]
                for groups, speaker in zip(grouped_clips, (voice_speaker, face_speaker), strict=True)
            ]
            shuffled = [[clips[i] for i in rng.permutation(len(clips))] for clips in candidates]
            for i, (voice_clip, face_clip) in enumerate(zip(*shuffled, strict=False)):
                name = urllib.parse.quote(f"{voice_speaker}+{face_speaker}_{label}_{i:03d}", safe="+")
                pairs.append(ClipPair(name, label, f"{voice_speaker}+{face_speaker}", voice_clip, face_clip))
    left_out = [
        f"{corpus.name}: {len(corpus.clips) - len(pairs)} of {len(corpus.clips)} clips without a partner"
        for corpus in (voice_corpus, face_corpus)
    ]
    return pairs, left_out


def pair_speakers(voice_corpus: Corpus, face_corpus: Corpus, seed: int) -> list[tuple[str, str]]:
    """Pairs of a voice's and a face's speaker, each in one pair at most; those of one sex first."""
    rng, speaker_pairs = np.random.default_rng(seed), []
    shuffled_speakers = []
    for corpus in (voice_corpus, face_corpus):
        names = sorted({clip.speaker for clip in corpus.clips})
        shuffled_speakers.append([names[i] for i in rng.permutation(len(names))])
    for sex in ("f", "m"):
        same_sex = [
            [name for name in names if corpus.sex.get(name) == sex]
            for corpus, names in zip((voice_corpus, face_corpus), shuffled_speakers, strict=True)
        ]
        speaker_pairs += zip(*same_sex, strict=False)
    used_speakers = [{speaker_pair[side] for speaker_pair in speaker_pairs} for side in (0, 1)]
    speaker_pairs += zip(
        *(
            [speaker for speaker in shuffled_speakers[side] if speaker not in used_speakers[side]]
            for side in (0, 1)
        ),
        strict=False,
    )
    return sorted(speaker_pairs)


def group_by_speaker_and_label(corpus: Corpus) -> dict[tuple[str, str], list[Clip]]:
    """Labelled clips of each speaker and class."""
    groups: dict = collections.defaultdict(list)
    for clip in corpus.clips:
        if clip.label >= 0:
            groups[clip.speaker, corpus.classes[clip.label]].append(clip)
    return groups


def make_composite(
    voice_corpus: Corpus, face_corpus: Corpus, output: str, seed: int
) -> tuple[int, list[str]]:
    """Writes the films and their table; started again, it makes those that are missing.

    A pair whose media cannot be read is left out and told. Returns the number of films, and what was left
    out.
    """
    pairs, left_out = pair_clips(voice_corpus, face_corpus, seed)
    os.makedirs(output, exist_ok=True)
    rows, sources = [], {}
    for clip_pair in pairs:
        file_name = f"{clip_pair.name}.mkv"
        try:
            if not os.path.exists(os.path.join(output, file_name)):
                write_pair(clip_pair, os.path.join(output, file_name))
        except MediaError as error:
            left_out.append(f"{clip_pair.voice.path} with {clip_pair.face.path}: {error}")
            continue
        rows.append((file_name, clip_pair.label, clip_pair.speaker))
        sources[file_name] = {
            side: {"clip_id": clip.clip_id, "speaker": clip.speaker, "path": clip.path}
            for side, clip in (("voice", clip_pair.voice), ("face", clip_pair.face))
        }
    note = f"COMPOSITE of voices of {voice_corpus.name} and faces of {face_corpus.name}, seed {seed}"
    metadata = {
        "note": note,
        "voice_corpus": voice_corpus.name,
        "face_corpus": face_corpus.name,
        "seed": seed,
    }
    write_json(os.path.join(output, SOURCES_FILE), metadata | {"left_out": left_out, "films": sources})
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("path", "label", "speaker"), *rows])
    write_atomic(os.path.join(output, TABLE_FILE), table.getvalue().encode())
    return len(rows), left_out


def write_pair(clip_pair: ClipPair, path: str) -> None:
    """Picture and sound of a pair as one film, whole or not at all; MediaError where a side can't be read."""
    face_info, voice_info = probe_media(clip_pair.face.path), probe_media(clip_pair.voice.path)
    if clip_pair.face.start is not None or clip_pair.face.end is not None or clip_pair.face.half:
        raise MediaError("the face is a part of a film, which can't be copied; cut the film first")
    if face_info.video is None or voice_info.audio is None:
        raise MediaError("no picture" if face_info.video is None else "no sound")
    start = clip_pair.voice.start or 0.0
    end = min(
        voice_info.audio.end, clip_pair.voice.end if clip_pair.voice.end is not None else voice_info.audio.end
    )
    duration_seconds = min(end - start, face_info.video.end)
    blocks = list(read_audio_blocks(voice_info, start, start + duration_seconds, SAMPLE_RATE))
    with (
        atomic_path(path) as temporary_path,
        open_media(face_info.path) as source,
        av.open(temporary_path, "w", format="matroska") as container,
    ):
        video_stream = container.add_stream_from_template(source.streams.video[0])
        audio_stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        mux_audio(container, audio_stream, np.concatenate(blocks))
        for packet in source.demux(source.streams.video[0]):
            if (
                packet.dts is None
                or (packet.pts or 0) * packet.time_base - face_info.start_time >= duration_seconds
            ):
                continue
            packet.stream = video_stream
            container.mux(packet)


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yields a temporary path; moves the file to `path` after the block, removes it if the block raises."""
    temporary_path = f"{path}.part"
    try:
        yield temporary_path
        os.replace(temporary_path, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary_path)
        raise


def mux_audio(container, stream, samples: np.ndarray) -> None:
    """Encodes mono samples in -1 to 1 from second 0 on."""
    int16_samples = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    for start in range(0, len(int16_samples), 4096):
        frame = av.AudioFrame.from_ndarray(
            int16_samples[None, start : start + 4096], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
