"""Suite `prepare`: clips per second that one core turns into records, next to two peers.

Each side runs in a separate process on one core. The PyTorch script (benchmarks/peers) searches the same
number of frames for faces of the same smallest size. "without faces" is the preparation except face detection
and alignment; its peer, bare decoding, decodes every frame and all audio without converting them. Rates in
frames count all frames of a clip, even if a side does not decode all of them.
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
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.utils.files import file_sha256

SETTINGS = RECIPES["fbp"]
CASES = {"native": (None, None), "720p": (720, None), "720p, looped to 9 s": (720, 9.0)}
"""Height in pixels and duration in seconds of the talking faces; None: as in the file."""
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
    """Yields rows for the talking faces in several sizes and for the clips next to the records.

    If clips or PyTorch are missing, a message is printed to stderr and they are left out.

    Args:
      data: Directory of records, with their clips in the folder `clips` next to it.
      clips_directory: Directory with clips of talking faces.
      workdir: Directory for looped clips, which later calls use again.
      with_torch: False: do not run the PyTorch script.
      repeats: Number of timed passes; the median is reported.
      max_clips: Largest number of clips of each case.
      cases: See CASES.

    Raises:
      ValueError: A package for decoding media is not installed.
    """
    require_media()
    has_script = with_torch and importlib.util.find_spec("torch") is not None
    if with_torch and not has_script:
        print(
            "prepare: PyTorch is not installed, its script is left out: pip install '.[bench]'",
            file=sys.stderr,
        )
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
    """Yields (name of the case, paths of its clips) for each case that has clips."""
    for name, (height, seconds) in cases.items():
        if paths := make_looped_clips(clips_directory, workdir, max_clips, height, seconds):
            yield f"talking faces, {name}", paths
    if paths := find_corpus_clips(data, max_clips):
        yield "clips beside the records", paths


def make_looped_clips(
    folder: str, workdir: str, max_clips: int, height: int | None, seconds: float | None
) -> list[str]:
    """Returns paths of the clips of a folder, scaled to `height` pixels and looped to `seconds`.

    The new clips are written under `workdir` once. If the folder has no clips, it prints a message and
    returns an empty list.
    """
    from benchmarks.peers.media_clips import write_looped_clip

    sources = sorted(path for pattern in MEDIA_PATTERNS for path in glob.glob(os.path.join(folder, pattern)))[
        :max_clips
    ]
    if not sources:
        print(f"prepare: {folder}: no clips in this folder; left out", file=sys.stderr)
    clips_directory = os.path.join(workdir, "clips", f"height_{height}_seconds_{seconds}")
    os.makedirs(clips_directory, exist_ok=True)
    names = [file_sha256(source)[:16] for source in sources]  # a changed source gets a new looped clip
    targets = [os.path.join(clips_directory, f"{name}.mp4") for name in names]
    for source, target in zip(sources, targets, strict=True):
        if not os.path.exists(target):
            write_looped_clip(source, target, seconds=seconds, height=height)
    return targets


def find_corpus_clips(data: str, max_clips: int) -> list[str]:
    """Returns paths of evenly selected clips with status `kept`, in the folder `clips` next to the records.

    If the records or the folder are missing, it prints a message and returns an empty list.
    """
    media_directory = os.path.join(data, "..", "clips")
    if not os.path.isdir(media_directory) or not os.path.isdir(data):
        print(f"prepare: {data}: no records, or no folder clips next to them; left out", file=sys.stderr)
        return []
    kept_paths = [item["path"] for item in read_manifest(data) if item["status"] == "kept"]
    indices = np.linspace(0, len(kept_paths) - 1, min(max_clips, len(kept_paths))).astype(int)
    return [os.path.join(media_directory, kept_paths[i]) for i in indices]


def measure_case(
    case: str, paths: Sequence[str], timers: dict[str, Callable[..., float]], repeats: int
) -> Iterator[dict]:
    """Yields four rows: complete and without faces, each in clips and in frames per second and core.

    `timers` has the function of each side that prepares the paths and returns its CPU seconds.
    """
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
    """Prepares clips like a worker and writes their records to disk.

    Raises:
      ValueError: A clip cannot be prepared completely.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            outcome = process_to_outcome(PrepJob(SETTINGS, "", 1), MediaClip("clip", path, 0, ""))
            if outcome.status != "kept":
                raise ValueError(f"{path}: {outcome.status}: {outcome.reason}")
            with open(os.path.join(folder, "record"), "wb") as file:
                file.write(outcome.data)


def prepare_without_faces(paths: Sequence[str]) -> None:
    """Computes the spectrogram and decodes the sampled frames of each clip; discards both."""
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
    """Decodes every frame and all audio of each clip and discards them."""
    from benchmarks.peers.media_clips import decode_clip

    for path in paths:
        decode_clip(path)


def prepare_with_script(paths: Sequence[str]) -> None:
    """Prepares clips with the PyTorch script."""
    from benchmarks.peers.prepare_script import prepare

    for path in paths:
        prepare(path, SETTINGS.face.min_face)
