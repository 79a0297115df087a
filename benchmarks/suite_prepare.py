"""The suite `prepare`: what a core prepares in a second, against a PyTorch script and against bare
decoding.

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

from benchmarks.pinned_process import pinned_process
from benchmarks.timing import make_row, measure_medians
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
SCRIPT_NAME = "PyTorch script"
MEDIA_PATTERNS = ("*.mp4", "*.mpg", "*.mkv", "*.mov", "*.avi", "*.webm")


def measure_prepare(
    data: str,
    clips_directory: str,
    workdir: str,
    *,
    with_torch: bool = True,
    repeats: int = 5,
    max_clips: int = 14,
    cases: dict[str, tuple[int | None, float | None]] = CASES,
) -> Iterator[dict]:
    """Rows of the talking faces in `clips_directory`, in several sizes, and of the media beside the records
    `data`.

    At most `max_clips` clips of each; what is not there is told on stderr and left out, and so is the script
    where PyTorch is not installed or `with_torch` is False.
    """
    require_media()
    has_script = with_torch and importlib.util.find_spec("torch") is not None
    if with_torch and not has_script:
        print("prepare: the PyTorch script is not there: pip install 'emofuse[bench]'", file=sys.stderr)
    tasks = {"ours": prepare_clips, "without faces": prepare_without_faces, "bare": decode_clips}
    if has_script:
        tasks["script"] = prepare_with_script
    with contextlib.ExitStack() as stack:
        timers = {
            name: functools.partial(stack.enter_context(pinned_process()), tasks[name]) for name in tasks
        }
        for case, paths in find_cases(data, clips_directory, workdir, max_clips, cases):
            yield from measure_case(case, paths, timers, repeats)


def find_cases(
    data: str, clips_directory: str, workdir: str, max_clips: int, cases: dict
) -> Iterator[tuple[str, list[str]]]:
    """The cases that have clips."""
    for name, (height, seconds) in cases.items():
        if paths := make_looped_clips(clips_directory, workdir, max_clips, height, seconds):
            yield f"talking faces, {name}", paths
    if paths := find_corpus_clips(data, max_clips):
        yield "clips beside the records", paths


def make_looped_clips(
    folder: str, workdir: str, max_clips: int, height: int | None, seconds: float | None
) -> list[str]:
    """The clips of a folder, scaled and looped, made once under `workdir`."""
    from benchmarks.peers.media_clips import write_looped_clip

    sources = sorted(path for pattern in MEDIA_PATTERNS for path in glob.glob(os.path.join(folder, pattern)))[
        :max_clips
    ]
    if not sources:
        print(f"prepare: {folder}: no clips there; left out", file=sys.stderr)
    clips_directory = os.path.join(workdir, "clips", f"height_{height}_seconds_{seconds}")
    os.makedirs(clips_directory, exist_ok=True)
    names = [file_sha256(source)[:16] for source in sources]  # another file of the same name is another loop
    targets = [os.path.join(clips_directory, f"{name}.mp4") for name in names]
    for source, target in zip(sources, targets, strict=True):
        if not os.path.exists(target):
            write_looped_clip(source, target, seconds=seconds, height=height)
    return targets


def find_corpus_clips(data: str, max_clips: int) -> list[str]:
    """Evenly chosen clips that were kept, of the media that lie beside the records."""
    media_directory = os.path.join(data, "..", "clips")
    if not os.path.isdir(media_directory) or not os.path.isdir(data):
        print(f"prepare: {data}: no records, or no clips beside them; left out", file=sys.stderr)
        return []
    kept_paths = [item["path"] for item in read_manifest(data) if item["status"] == "kept"]
    indices = np.linspace(0, len(kept_paths) - 1, min(max_clips, len(kept_paths))).astype(int)
    return [os.path.join(media_directory, kept_paths[i]) for i in indices]


def measure_case(
    case: str, paths: Sequence[str], timers: dict[str, Callable[..., float]], repeats: int
) -> Iterator[dict]:
    """Four rows: whole and without faces, in clips and in frames; `timers` gives the seconds of each side."""
    median_seconds = measure_medians(
        {name: functools.partial(timer, paths) for name, timer in timers.items()}, repeats
    )
    frames = sum(len(probe_media(path).video.times) for path in paths)
    for our_key, peer_key, name in (
        ("ours", "script", SCRIPT_NAME),
        ("without faces", "bare", "bare decoding"),
    ):
        case_name = case if our_key == "ours" else f"{case}, {our_key}"
        for unit, count in (("clips/s/core", len(paths)), ("frames/s/core", frames)):
            peer_rate = count / median_seconds[peer_key] if peer_key in median_seconds else None
            yield make_row(
                case_name, unit, count / median_seconds[our_key], peer_rate, peer_name=name, repeats=repeats
            )


def prepare_clips(paths: Sequence[str]) -> None:
    """Clips to records on disk, as a worker makes them."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            outcome = process_to_outcome(PrepJob(SETTINGS, "", 1), Clip("clip", path, 0, ""))
            if outcome.status != "kept":
                raise ValueError(f"{path}: {outcome.status}: {outcome.reason}")
            with open(os.path.join(folder, "record"), "wb") as file:
                file.write(outcome.data)


def prepare_without_faces(paths: Sequence[str]) -> None:
    """Spectrogram and sampled frames of each clip."""
    for path in paths:
        media_info = probe_media(path)
        log_spectrogram(
            read_audio_blocks(media_info, 0.0, media_info.duration, SETTINGS.audio.sample_rate),
            SETTINGS.audio,
        )
        start_seconds = float(media_info.video.times.min())
        read_frames(
            media_info, frame_times(media_info.video, start_seconds, media_info.video.end, SETTINGS.face)
        )


def decode_clips(paths: Sequence[str]) -> None:
    """Every frame and all sound, decoded."""
    from benchmarks.peers.media_clips import decode_clip

    for path in paths:
        decode_clip(path)


def prepare_with_script(paths: Sequence[str]) -> None:
    """The script in PyTorch."""
    from benchmarks.peers.prepare_script import prepare

    for path in paths:
        prepare(path, SETTINGS.face.min_face)
