"""The demo corpus: drawn faces that speak, whose best possible accuracy is known.

Every clip has a face that shows one of three families p and a state s_f in {0, 1}, and a voice with a state
s_v in {0, 1}; all are independent and uniform. The emotion is the pair (p, m), class 2 p + m, with

    m = s_v           for p = 0
    m = s_f xor s_v   for p = 1, 2    (a voice that turns the meaning of a face, as irony does)

so that the voice alone can reach an accuracy of 1/3, the face alone 1/2, any additive combination of the two
`argmax_c a_c(face) + b_c(voice)` 5/6, and both together 1 (`accuracy_ceilings`). The six names of the classes
are a construction: they give RAVDESS-like file names, and no look or voice is meant to be that emotion's.

About one clip in twenty is damaged as real ones are (`data_prep.synth.clip.DAMAGES`); `demo.csv`, beside the
clips, says which. It is written last: a directory without it is not finished.
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

from data_prep.synth.clip import render_clip
from data_prep.synth.corpus_plan import STATES, DemoClip, class_of, plan_corpus
from emofuse_jax.data.writing.corpus import Clip, Corpus
from emofuse_jax.utils.files import write_atomic
from emofuse_jax.utils.system import available_cores

GENERATOR_VERSION = 1
"""Of the generator: clips of different versions are never mixed in a directory."""
CLASSES = ("neutral", "happy", "sad", "angry", "fearful", "surprised")
PARAMETERS_FILE, TABLE_FILE = "demo.json", "demo.csv"


def read_corpus(source: str) -> Corpus:
    """The finished corpus in the directory `source`; speakers are "01", "02", ..., odd ones male.

    Raises FileNotFoundError when it is not finished, ValueError when demo.csv is not as it was written.
    """
    demo_clips = read_demo_clips(source)
    clips = tuple(Clip(c.clip_id, os.path.join(source, c.path), c.label, c.speaker) for c in demo_clips)
    sex = {c.speaker: "m" if int(c.speaker) % 2 else "f" for c in demo_clips}
    counts = Counter(c.damage for c in demo_clips if c.damage)
    notes = [
        f"{count} of {len(demo_clips)} clips made with {damage} (demo.csv)"
        for damage, count in counts.items()
    ]
    return Corpus("demo", CLASSES, clips, sex, tuple(sorted(notes)), root=os.path.abspath(source))


def read_demo_clips(source: str) -> tuple[DemoClip, ...]:
    """The clips of a finished corpus with their states and damages, ordered by clip_id; raises as above."""
    path = os.path.join(source, TABLE_FILE)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: not there; the corpus is not finished, run emofuse demo again")
    field_types = {f.name: f.type for f in dataclasses.fields(DemoClip)}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            clips = [
                DemoClip(**{name: field_types[name](value) for name, value in row.items()}) for row in rows
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: line {rows.line_num}: {error}; expected {','.join(field_types)}"
            ) from error
    return tuple(sorted(clips, key=lambda clip: clip.clip_id))


def accuracy_ceilings(clips: Iterable[DemoClip]) -> dict[str, float]:
    """Best possible accuracy on these clips as made: of the voice, the face, their sum, and both.

    The mean over clips of the Bayes accuracy of what a clip shows: 1/3, 1/2, 5/6, 1 where it shows all, the
    voice's alone (1/3) where there is no face, the face's alone (1/2) where there is no voice, and 1/6 for a
    stream that is not there. A face that is lost on the way was seen. Raises ValueError without clips.
    """
    counts = Counter(clip.damage for clip in clips)
    if not counts:
        raise ValueError("ceilings: no clips, expected at least one")
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
    """Accuracy of the most frequent class of each observation, over all equally likely states."""
    class_counts: dict[Hashable, Counter] = {}
    for state in STATES:
        class_counts.setdefault(observe(*state), Counter())[class_of(*state)] += 1
    return sum(max(counts.values()) for counts in class_counts.values()) / len(STATES)


def _best_additive_accuracy() -> float:
    """Best accuracy of `argmax_c a_c(p, s_f) + b_c(s_v)`.

    The face tells p, and each family has classes of its own, so the rule is free in each: it chooses m = 1
    where `a(s_f) + b(s_v) > 0`. The scores below give all 14 labellings of the four cells that such a sum can
    give; xor is none of them.
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
    """Makes the corpus in `directory` with `workers` processes (default: one per core).

    Stopped at any moment and called again, it goes on and ends with the same bytes, whatever `workers` is.
    `progress(done, total)` is called after each clip. Raises ValueError when the arguments are out of range
    or when `directory` holds a demo corpus made with others.
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


def _claim_directory(directory: str, parameters: dict) -> None:
    """Notes what is being made here, or checks that it is what has been begun."""
    path = os.path.join(directory, PARAMETERS_FILE)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            stored_parameters = json.load(file)
        for name, value in parameters.items():
            if stored_parameters.get(name) != value:
                raise ValueError(
                    f"{path}: {name} is {stored_parameters.get(name)}, expected {value}; use another"
                    f" directory"
                )
        return
    os.makedirs(directory, exist_ok=True)
    write_atomic(path, json.dumps(parameters).encode())


def _render_all(directory: str, clips: list[DemoClip], seed: int, workers: int) -> Iterator[None]:
    """Makes the clips, yielding after each; a speaker's clips go to one worker as far as possible."""
    jobs = [(directory, clip, seed) for clip in clips]
    if workers == 1 or len(jobs) < 2:
        yield from map(_render_file, jobs)
        return
    context = multiprocessing.get_context("spawn")  # threads of the caller don't survive a fork
    with context.Pool(min(workers, len(jobs)), initializer=_limit_opencv_threads) as pool:
        yield from pool.imap_unordered(
            _render_in_worker, jobs, chunksize=max(1, min(15, len(jobs) // (4 * workers)))
        )


def _limit_opencv_threads() -> None:
    import cv2

    cv2.setNumThreads(1)


def _render_in_worker(job: tuple[str, DemoClip, int]) -> None:
    """`_render_file` in a worker, which ends when the run it works for has been killed."""
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
