"""The suite `prepare`: what a core prepares in a second, against a PyTorch script and against bare decoding.

Each side has its own process on one core. The script (benchmarks/peers) searches as many frames for faces of
the same smallest size. "without faces" is all but detection and alignment; bare decoding decodes every frame
and all sound and converts neither. Frames are those of the source, also where a side can do without some of
them.
"""

import contextlib
import functools
import glob
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.pinned_process import one_core
from benchmarks.timing import medians, row
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.frame_sampling import frame_times
from data_prep.media.frames import read_frames
from data_prep.media.probe import probe_media
from data_prep.optional_dependencies import require_media
from data_prep.settings import RECIPES
from data_prep.spectrogram import log_spectrogram
from data_prep.workers.pool import PrepJob, process_to_outcome
from emofuse_jax.data.records import read_manifest
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.utils.files import file_sha256

SETTINGS = RECIPES["fbp"]
CASES = {"native": (None, None), "720p": (720, None), "720p, looped to 9 s": (720, 9.0)}
"""Lines and seconds of the talking faces; None: their own."""
SCRIPT = "PyTorch script"
KINDS = ("*.mp4", "*.mpg", "*.mkv", "*.mov", "*.avi", "*.webm")


def prepare(
    data: str,
    clips: str,
    workdir: str,
    *,
    torch: bool = True,
    repeats: int = 5,
    most: int = 14,
    cases: dict[str, tuple[int | None, float | None]] = CASES,
) -> Iterator[dict]:
    """Rows of the talking faces in `clips`, in several sizes, and of the media beside the records `data`.

    At most `most` clips of each; what is not there is told on stderr and left out, and so is the script where
    PyTorch is not installed or `torch` is False.
    """
    require_media()
    script = torch and importlib.util.find_spec("torch") is not None
    if torch and not script:
        print("prepare: the PyTorch script is not there: pip install 'emofuse[bench]'", file=sys.stderr)
    sides = {"ours": ours, "without faces": without_faces, "bare": bare}
    if script:
        sides["script"] = peer
    with contextlib.ExitStack() as stack:
        timed = {name: functools.partial(stack.enter_context(one_core()), sides[name]) for name in sides}
        for case, paths in found(data, clips, workdir, most, cases):
            yield from measured(case, paths, timed, repeats)


def found(data: str, clips: str, workdir: str, most: int, cases: dict) -> Iterator[tuple[str, list[str]]]:
    """The cases that have clips."""
    for name, (height, seconds) in cases.items():
        if paths := looped_clips(clips, workdir, most, height, seconds):
            yield f"talking faces, {name}", paths
    if paths := corpus_clips(data, most):
        yield "clips beside the records", paths


def looped_clips(
    folder: str, workdir: str, most: int, height: int | None, seconds: float | None
) -> list[str]:
    """The clips of a folder, scaled and looped, made once under `workdir`."""
    from benchmarks.peers.media_clips import looped

    sources = sorted(path for kind in KINDS for path in glob.glob(os.path.join(folder, kind)))[:most]
    if not sources:
        print(f"prepare: {folder}: no clips there; left out", file=sys.stderr)
    home = os.path.join(workdir, "clips", f"height_{height}_seconds_{seconds}")
    os.makedirs(home, exist_ok=True)
    names = [file_sha256(source)[:16] for source in sources]  # another file of the same name is another loop
    targets = [os.path.join(home, f"{name}.mp4") for name in names]
    for source, target in zip(sources, targets, strict=True):
        if not os.path.exists(target):
            looped(source, target, seconds=seconds, height=height)
    return targets


def corpus_clips(data: str, most: int) -> list[str]:
    """Evenly chosen clips that were kept, of the media that lie beside the records."""
    media = os.path.join(data, "..", "clips")
    if not os.path.isdir(media) or not os.path.isdir(data):
        print(f"prepare: {data}: no records, or no clips beside them; left out", file=sys.stderr)
        return []
    kept = [item["path"] for item in read_manifest(data) if item["status"] == "kept"]
    chosen = np.linspace(0, len(kept) - 1, min(most, len(kept))).astype(int)
    return [os.path.join(media, kept[i]) for i in chosen]


def measured(
    case: str, paths: Sequence[str], timed: dict[str, Callable[..., float]], repeats: int
) -> Iterator[dict]:
    """Four rows: whole and without faces, in clips and in frames; `timed` gives the seconds of each side."""
    taken = medians({name: functools.partial(side, paths) for name, side in timed.items()}, repeats)
    frames = sum(len(probe_media(path).video.times) for path in paths)
    for mine, other, name in (("ours", "script", SCRIPT), ("without faces", "bare", "bare decoding")):
        what = case if mine == "ours" else f"{case}, {mine}"
        for unit, count in (("clips/s/core", len(paths)), ("frames/s/core", frames)):
            theirs = count / taken[other] if other in taken else None
            yield row(what, unit, count / taken[mine], theirs, peer_name=name, repeats=repeats)


def ours(paths: Sequence[str]) -> None:
    """Clips to records on disk, as a worker makes them."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            outcome = process_to_outcome(PrepJob(SETTINGS, "", 1), Clip("clip", path, 0, ""))
            if outcome.status != "kept":
                raise ValueError(f"{path}: {outcome.status}: {outcome.reason}")
            with open(os.path.join(folder, "record"), "wb") as file:
                file.write(outcome.data)


def without_faces(paths: Sequence[str]) -> None:
    """Spectrogram and sampled frames of each clip."""
    for path in paths:
        info = probe_media(path)
        log_spectrogram(
            read_audio_blocks(info, 0.0, info.duration, SETTINGS.audio.sample_rate), SETTINGS.audio
        )
        first = float(info.video.times.min())
        read_frames(info, frame_times(info.video, first, info.video.end, SETTINGS.face))


def bare(paths: Sequence[str]) -> None:
    """Every frame and all sound, decoded."""
    from benchmarks.peers.media_clips import decode

    for path in paths:
        decode(path)


def peer(paths: Sequence[str]) -> None:
    """The script in PyTorch."""
    from benchmarks.peers.prepare_script import prepare

    for path in paths:
        prepare(path, SETTINGS.face.min_face)
