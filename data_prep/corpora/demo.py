"""Generates and reads the demo corpus: drawn faces that speak, with known best possible accuracies.

Every clip has a face that shows one of three families p and a state s_f in {0, 1}, and a voice with a state
s_v in {0, 1}; all are independent and uniform. The emotion is the pair (p, m), class 2 p + m, with

    m = s_v           for p = 0
    m = s_f xor s_v   for p = 1, 2    (the voice reverses the meaning of the face, as in irony)

The best possible accuracy is 1/3 with the voice alone, 1/2 with the face alone, 5/6 with any additive
combination `argmax_c a_c(face) + b_c(voice)`, and 1 with both together (`accuracy_ceilings`). The six class
names only serve to give file names like those of RAVDESS; the faces and voices do not imitate these emotions.

About one clip in twenty is damaged as real clips are (`data_prep.synth.clip.DAMAGES`); `demo.csv`, next to
the clips, lists the damages. It is written last: a directory without it is incomplete.
"""

import csv
import dataclasses
import functools
import io
import itertools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import get_type_hints

from data_prep.synth.clip import render_clip
from data_prep.synth.corpus_plan import STATES, DemoClip, class_of, plan_corpus
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.files import read_json_object, write_atomic
from emofuse_jax.utils.system import available_cores

GENERATOR_VERSION = 1
"""Version of the generator; a directory never mixes clips of different versions."""
CLASSES = ("neutral", "happy", "sad", "angry", "fearful", "surprised")
PARAMETERS_FILE, TABLE_FILE = "demo.json", "demo.csv"


def read_corpus(source: str) -> Corpus:
    """Returns the complete demo corpus in the directory `source`, a `Corpus` with six classes.

    These are, in this order, neutral, happy, sad, angry, fearful and surprised. Clips are ordered by clip_id;
    each has a clip_id such as `01-03-01-01-01-12`, a path, which begins with `source`, a label, an index into
    the classes, and a speaker "01", "02", .... `sex` is `m` for odd speakers, otherwise `f`. Notes count the
    damaged clips. Raises FileNotFoundError if demo.csv does not exist (the corpus is incomplete), ValueError
    if it is not CSV in UTF-8 or a row is wrong, OSError if it can't be read.
    """
    demo_clips = read_demo_clips(source)
    clips = tuple(MediaClip(c.clip_id, os.path.join(source, c.path), c.label, c.speaker) for c in demo_clips)
    sex = {c.speaker: "m" if int(c.speaker) % 2 else "f" for c in demo_clips}
    counts = Counter(c.damage for c in demo_clips if c.damage)
    notes = [
        f"{count} of {len(demo_clips)} clips generated with damage {damage} (demo.csv)"
        for damage, count in counts.items()
    ]
    return Corpus("demo", CLASSES, clips, sex, tuple(sorted(notes)), root=os.path.abspath(source))


def read_demo_clips(source: str) -> tuple[DemoClip, ...]:
    """Returns the rows of demo.csv in the directory `source` as `DemoClip`, ordered by clip_id.

    Each has `clip_id`; `path`, relative to `source`; `label`, the class from 0 to 5; `speaker`, "01", "02",
    ...; `p`, the family of the face (0 to 2), and `s_f` and `s_v`, the states of the face and of the voice (0
    or 1), which determine the label; `damage`, `no_face`, `lost_track` (the face is hidden for half of the
    clip or more), `noise`, `silence`, or empty; and `seed`, the number of the clip.

    Raises FileNotFoundError if demo.csv does not exist, ValueError if it is not CSV in UTF-8 or a row lacks a
    column, has an unknown column or no integer in a column of numbers, OSError if it can't be read. Ranges
    are not checked.
    """
    path = os.path.join(source, TABLE_FILE)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: does not exist, the corpus is incomplete; run emofuse demo again")
    field_types = get_type_hints(DemoClip)
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            clips = [
                DemoClip(**{name: field_types[name](value) for name, value in row.items()}) for row in rows
            ]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(
                f"{path}: line {rows.line_num}: {error}; expected {','.join(field_types)};"
                " run emofuse demo again"
            ) from error
    return tuple(sorted(clips, key=lambda clip: clip.clip_id))


def accuracy_ceilings(clips: Iterable[DemoClip]) -> dict[str, float]:
    """Computes the best accuracies that any classifier can have on these clips, with their damages.

    Each accuracy is the mean over clips. For an undamaged clip it is 1/3 with the voice alone, 1/2 with
    the face alone, 5/6 with any sum of face scores and voice scores for each class, and 1 with both together.
    For a clip without a face, it is 1/3 for all that use the voice; for a clip without a voice, 1/2 for all
    that use the face; and 1/6 for a missing modality alone. A face that is hidden for a part of the clip
    counts as visible.

    Returns:
      Accuracies from 0 to 1 with the keys `voice`, `face`, `additive` (a sum of scores) and `both`.

    Raises:
      ValueError: `clips` is empty.
    """
    counts = Counter(clip.damage for clip in clips)
    if not counts:
        raise ValueError("accuracy_ceilings: clips is empty, expected at least one; pass those of demo.csv")
    ceilings_by_damage = {damage: _ceilings_for_damage(damage) for damage in counts}
    return {
        name: sum(count * ceilings_by_damage[damage][name] for damage, count in counts.items())
        / counts.total()
        for name in ("voice", "face", "additive", "both")
    }


@functools.cache
def _ceilings_for_damage(damage: str) -> dict[str, float]:
    has_face, has_voice = damage != "no_face", damage not in ("noise", "silence")
    both = _bayes_accuracy(lambda p, f, v: (has_face and (p, f), has_voice and (v,)))
    return {
        "voice": _bayes_accuracy(lambda p, f, v: has_voice and (v,)),
        "face": _bayes_accuracy(lambda p, f, v: has_face and (p, f)),
        "additive": _best_additive_accuracy() if has_face and has_voice else both,
        "both": both,
    }


def _bayes_accuracy(observe: Callable[[int, int, int], Hashable]) -> float:
    """Computes the accuracy, 0 to 1, of the rule that predicts the most frequent class of each observation.

    All states are equally likely. `observe` returns what the rule can see of a state: family of the face
    (0 to 2), state of the face (0 or 1), state of the voice (0 or 1).
    """
    class_counts: dict[Hashable, Counter[int]] = {}
    for state in STATES:
        class_counts.setdefault(observe(*state), Counter())[class_of(*state)] += 1
    return sum(max(counts.values()) for counts in class_counts.values()) / len(STATES)


def _best_additive_accuracy() -> float:
    """Computes the best accuracy, 0 to 1, of a rule that adds a face score and a voice score for each class.

    The face shows its family, and each family has two classes of its own, so the rule can have other scores
    in each family: it predicts the second class if `a[state of the face] + b[state of the voice] > 0`, else
    the first. Of the 16 ways to divide the four pairs of states between two classes, such a sum can produce
    14, which are all tried: all but "exclusive or" and its opposite.
    """
    face_scores = tuple(itertools.product((-2, 0, 2), repeat=2))
    voice_scores = tuple(itertools.product((-1, 1), repeat=2))
    correct = 0
    for family in {p for p, _, _ in STATES}:
        cells = [(f, v, class_of(p, f, v) % 2) for p, f, v in STATES if p == family]
        correct += max(
            sum((a[f] + b[v] > 0) == m for f, v, m in cells) for a in face_scores for b in voice_scores
        )
    return correct / len(STATES)


def write_corpus(
    directory: str,
    *,
    speakers: int = 24,
    clips_per_speaker: int = 60,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Generates the demo corpus in a directory: mp4 files, demo.json (parameters) and, last, demo.csv.

    The call may be stopped at any moment; the same call resumes and produces the same bytes, with any
    number of workers.

    Args:
      directory: directory to write, created if missing.
      speakers: number of speakers, 1 to 99.
      clips_per_speaker: number of clips of each speaker, 1 to 1000.
      seed: seed of everything, 0 to 2**31 (included).
      workers: number of processes, 1 or more; None or 0: one for each core.
      progress: called after each clip with the number of finished clips and of all clips; None: not called.

    Raises:
      ValueError: one of these numbers is out of range, `directory` contains a demo corpus with other
        parameters, or its demo.json is not a JSON object.
      OSError: a file can't be read or written.
      av.FFmpegError: FFmpeg can't encode H.264 or AAC.
    """
    for name, value, minimum, maximum in (
        ("speakers", speakers, 1, 99),
        ("clips_per_speaker", clips_per_speaker, 1, 1000),
        ("seed", seed, 0, 2**31),
    ):
        if not minimum <= value <= maximum:
            raise ValueError(f"{name}: {value}, expected {minimum} to {maximum}")
    parameters = dict(
        version=GENERATOR_VERSION, speakers=speakers, clips_per_speaker=clips_per_speaker, seed=seed
    )
    _claim_directory(directory, parameters)
    clips = plan_corpus(speakers, clips_per_speaker, seed)
    missing_clips = [clip for clip in clips if not os.path.exists(os.path.join(directory, clip.path))]
    num_finished = len(clips) - len(missing_clips)
    for _ in _render_all(directory, missing_clips, seed, workers or available_cores()):
        num_finished += 1
        if progress is not None:
            progress(num_finished, len(clips))
    write_atomic(os.path.join(directory, TABLE_FILE), _encode_csv(clips))


def _claim_directory(directory: str, parameters: dict[str, int]) -> None:
    """Writes the parameters to demo.json in `directory`, unless that file exists with the same parameters.

    These are `version` (of the generator), `speakers`, `clips_per_speaker` and `seed`. A missing directory is
    created. Raises ValueError if demo.json has other parameters or is not a JSON object, OSError if it
    can't be read or written.
    """
    path = os.path.join(directory, PARAMETERS_FILE)
    if os.path.exists(path):
        stored_parameters = read_json_object(path)
        for name, value in parameters.items():
            if stored_parameters.get(name) != value:
                raise ValueError(
                    f"{path}: {name} is {stored_parameters.get(name)}, expected {value}; use another"
                    f" directory, or the stored value"
                )
        return
    os.makedirs(directory, exist_ok=True)
    write_atomic(path, json.dumps(parameters).encode())


def _render_all(directory: str, clips: list[DemoClip], seed: int, workers: int) -> Iterator[None]:
    """Generates the files of the clips and yields None after each; `workers` is the number of processes.

    Each clip is written to its path in `directory`, and replaces an existing file; with several workers, the
    order of the files differs. `seed` is the seed of the corpus. Consecutive clips of a speaker go to the
    same worker, which speeds up drawing. Raises OSError if a file can't be written, av.FFmpegError if FFmpeg
    can't encode a clip, ValueError if `workers` is below 1 and there are several clips.
    """
    jobs = [(directory, clip, seed) for clip in clips]
    if workers == 1 or len(jobs) < 2:
        yield from map(_render_file, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork would lose the caller's threads
    with context.Pool(min(workers, len(jobs)), initializer=_limit_opencv_threads) as pool:
        yield from pool.imap_unordered(
            _render_in_worker, jobs, chunksize=max(1, min(15, len(jobs) // (4 * workers)))
        )


def _limit_opencv_threads() -> None:
    import cv2

    cv2.setNumThreads(1)


def _render_in_worker(job: tuple[str, DemoClip, int]) -> None:
    """Generates and writes the file of one clip in a worker process; returns nothing.

    `job` is the directory of the corpus, the clip and the seed of the corpus. The file is `clip.path` in the
    directory; an existing one is replaced. Ends the process with status 1 if its parent process has been
    killed. Raises OSError if the file can't be written, av.FFmpegError if FFmpeg can't encode the clip.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
    _render_file(job)


def _render_file(job: tuple[str, DemoClip, int]) -> None:
    directory, clip, seed = job
    path = os.path.join(directory, clip.path)
    data = render_clip(
        speaker=int(clip.speaker),
        p=clip.p,
        s_f=clip.s_f,
        s_v=clip.s_v,
        damage=clip.damage,
        corpus_seed=seed,
        seed=clip.seed,
    )
    write_atomic(path, data)


def _encode_csv(clips: Iterable[DemoClip]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in dataclasses.fields(DemoClip)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(clip) for clip in clips)
    return text.getvalue().encode()
