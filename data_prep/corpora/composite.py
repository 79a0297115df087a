"""Pairs voices of one corpus with faces of another, by label: a stress test of fusion on real signals.

COMPOSITE: the people in these clips do not exist, the lips do not match the audio, and a score on such clips
says nothing about people; every report and card is marked COMPOSITE. Use them to see if a fusion learns from
two real modalities, how it weights them, and what it does when one is missing.

A composite person consists of one voice speaker and one face speaker, of the same sex as far as both are
known. No voice and no face is part of two persons, so a split by person separates the speakers of both
corpora. Speakers and clips without a partner are left out and counted. `emofuse composite` writes the video
files (video is copied, audio is FLAC, both begin at 0 and end with the shorter one), `composite.csv`, and
`composite.json`, which lists the two sources of each file. `emofuse prepare --corpus=composite` reads them.
"""

import collections
import contextlib
import csv
import dataclasses
import io
import os
import urllib.parse
from collections.abc import Iterator
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from jaxtyping import Float

from data_prep.corpora import folder
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import MediaError, open_media, probe_media
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.files import read_json_object, write_atomic, write_json

TABLE_FILE, SOURCES_FILE = "composite.csv", "composite.json"
SAMPLE_RATE = 16_000
"""Sample rate of the written audio in Hz; all recipes read 16 kHz."""


@dataclasses.dataclass(frozen=True)
class ClipPair:
    """The two source clips of a composite clip, with its name, label and speaker."""

    name: str
    label: str
    speaker: str
    voice: MediaClip
    face: MediaClip


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with the clips of a directory that `make_composite` wrote.

    A clip has the name of its file as clip_id, such as `01+05_happy_000.mkv`, an absolute path, a label, and
    a speaker: the names of the voice speaker and of the face speaker, joined by `+`. The label is an index
    into `classes`, the class names in alphabetical order. Clips have the order of composite.csv; `sex` and
    `protocols` are empty. The notes name the two source corpora and list what was left out. The name is
    `composite_demo` if one of them is the demo corpus, otherwise `composite`.

    Raises:
      FileNotFoundError: composite.json or composite.csv does not exist.
      OSError: one of these files can't be read.
      ValueError: composite.json is not a JSON object, lacks a field or has one of a wrong type, or
        composite.csv is not CSV in UTF-8 or a column or value in it is missing, unknown or wrong.
    """
    sources_path = os.path.join(source, SOURCES_FILE)
    try:
        metadata = cast(
            dict[str, Any],
            read_json_object(sources_path, voice_corpus=str, face_corpus=str, note=str, left_out=list),
        )
    except FileNotFoundError:
        raise FileNotFoundError(f"{sources_path}: does not exist; run emofuse composite first") from None
    corpus = folder.read_corpus(os.path.join(source, TABLE_FILE))
    is_synthetic = "demo" in (metadata["voice_corpus"], metadata["face_corpus"])
    name = "composite_demo" if is_synthetic else "composite"
    return dataclasses.replace(corpus, name=name, notes=(metadata["note"], *metadata["left_out"]))


def pair_clips(voice_corpus: Corpus, face_corpus: Corpus, seed: int) -> tuple[list[ClipPair], list[str]]:
    """Pairs the clips of two corpora by label, at random with the seed `seed`, 0 or larger.

    Returns:
      A list of pairs, ordered by voice speaker, class (as in `voice_corpus`) and number, and a list of two
      lines that state how many clips of each corpus have no partner. A `ClipPair` has `name`, such as
      `01+05_happy_000` (special characters as in URLs), `label` (a class name), `speaker`, such as `01+05`,
      and the clips `voice` and `face`, each a `MediaClip`.

    Raises:
      ValueError: the corpora have fewer than 2 classes in common, or fewer than 3 pairs of speakers; `seed`
        is negative; or a name is not valid in UTF-8.
    """
    classes = [name for name in voice_corpus.classes if name in face_corpus.classes]
    speaker_pairs = pair_speakers(voice_corpus, face_corpus, seed)
    if len(classes) < 2 or len(speaker_pairs) < 3:
        raise ValueError(
            f"{voice_corpus.name} and {face_corpus.name}: {len(classes)} classes in common, expected at least"
            f" 2, and {len(speaker_pairs)} pairs of a voice speaker and a face speaker, expected at least 3;"
            " choose class maps with common classes, and corpora with at least 3 speakers each"
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
    """Returns (voice speaker, face speaker) pairs, chosen at random with a fixed seed, in sorted order.

    Each speaker of a corpus is in at most one pair. Speakers of the same known sex are paired first, then the
    others in any combination; those without a partner are left out. The list is empty if one of the corpora
    has no clips. Raises ValueError if `seed` is negative.
    """
    rng = np.random.default_rng(seed)
    speaker_pairs: list[tuple[str, str]] = []
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


def group_by_speaker_and_label(corpus: Corpus) -> dict[tuple[str, str], list[MediaClip]]:
    """Returns a dict from (speaker, class name) to the list of that speaker's clips of that class.

    Lists have the order of `corpus.clips`. Unlabelled clips are left out. A missing key gives an empty list.
    """
    groups: dict[tuple[str, str], list[MediaClip]] = collections.defaultdict(list)
    for clip in corpus.clips:
        if clip.label >= 0:
            groups[clip.speaker, corpus.classes[clip.label]].append(clip)
    return groups


def make_composite(
    voice_corpus: Corpus, face_corpus: Corpus, output: str, seed: int
) -> tuple[int, list[str]]:
    """Writes a composite clip for each pair of clips of two corpora, and composite.csv and composite.json.

    Files of clips are named `<voice speaker>+<face speaker>_<class>_<number>.mkv`; the number has three
    digits. An existing clip is not written again, even if other corpora or another seed paired other clips
    for it; use a new directory for those. composite.csv and composite.json are replaced. composite.csv has
    the columns path (the file name), label (class name) and speaker. composite.json has `note`,
    `voice_corpus` and `face_corpus` (names), `seed`, `left_out`, and `films`: clip_id, speaker and path of
    the two sources, `voice` and `face`, of each file.

    Args:
      voice_corpus: corpus that the audio is taken from.
      face_corpus: corpus that the video is taken from.
      output: directory to write, created if missing.
      seed: seed of the pairing, 0 or larger.

    Returns:
      The number of composite clips, including those that existed, and a list of lines for everything that was
      left out: clips without a partner, and pairs with a file that can't be read or written.

    Raises:
      ValueError: the corpora have fewer than 2 classes in common, or fewer than 3 pairs of speakers; `seed`
        is negative; a name or path is not valid in UTF-8; or Matroska does not support the codec of a
        video, such as FLV1.
      OSError: the directory, a complete clip, composite.csv or composite.json can't be written.
    """
    if seed < 0:
        raise ValueError(f"seed={seed}: expected 0 or a larger number; choose another seed")
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
    """Writes a pair as one Matroska file, atomically: the video is copied, the audio is encoded as FLAC.

    The file begins at 0 and ends with the shorter of both; an existing one is replaced. Raises MediaError if
    a source file can't be read or lacks the video or audio, if the face clip is only a part of its file, or
    if encoding or writing fails; ValueError if Matroska does not support the codec of the video, such as
    FLV1; OSError if the complete file can't be moved to `path`.
    """
    face_info, voice_info = probe_media(clip_pair.face.path), probe_media(clip_pair.voice.path)
    if clip_pair.face.start is not None or clip_pair.face.end is not None or clip_pair.face.half:
        raise MediaError(
            f"face clip {clip_pair.face.clip_id!r}: a part of its file, which can't be copied; cut the file"
            " first"
        )
    if face_info.video is None:
        raise MediaError(
            f"face clip {clip_pair.face.clip_id!r}: no video stream, expected one; choose clips with video"
        )
    if voice_info.audio is None:
        raise MediaError(
            f"voice clip {clip_pair.voice.clip_id!r}: no audio stream, expected one; choose clips with audio"
        )
    start = clip_pair.voice.start or 0.0
    end = min(
        voice_info.audio.end, clip_pair.voice.end if clip_pair.voice.end is not None else voice_info.audio.end
    )
    duration_seconds = min(end - start, face_info.video.end)
    blocks = list(read_audio_blocks(voice_info, start, start + duration_seconds, SAMPLE_RATE))
    if not blocks:
        raise MediaError(
            f"voice clip {clip_pair.voice.clip_id!r}: no audio from {start:g} s on, expected some; correct"
            " its start in the table of the voice corpus, or replace its media file"
        )
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
    """Yields the temporary path `<path>.part`, to which the block writes a file.

    Moves that file to `path` after the block, replacing an existing one; removes it if the block raises, and
    passes the error through. Raises OSError if the file can't be moved, for example because the block wrote
    none.
    """
    temporary_path = f"{path}.part"
    try:
        yield temporary_path
        os.replace(temporary_path, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary_path)
        raise


def mux_audio(
    container: av.container.OutputContainer, stream: AudioStream, samples: Float[np.ndarray, " n"]
) -> None:
    """Encodes all samples of an audio stream, from second 0 on, and writes them to its container.

    `samples` are n mono samples at 16 kHz from -1 to 1, beyond which they are clipped; `stream` is a 16-bit
    audio stream of `container`. The encoder is flushed, so the stream can be used only once. Raises
    av.FFmpegError if the samples can't be encoded or written.
    """
    int16_samples = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    for start in range(0, len(int16_samples), 4096):
        frame = av.AudioFrame.from_ndarray(
            int16_samples[None, start : start + 4096], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
