"""Speaker-independent folds: test speakers by protocol, validation speakers a seeded part of the others."""

import hashlib
import importlib.metadata
import importlib.resources
import json
import os

from emofuse_jax.data.writing.corpus import Corpus, Protocol
from emofuse_jax.utils.files import write_json

VALIDATION_SHARE = 0.2
"""Share of a fold's training speakers that are held out for validation."""
MOST_FOLDS = 5


def protocols(corpus: Corpus) -> list[Protocol]:
    """The shipped protocols of a corpus whose speakers are all here; without one, seeded speaker groups.

    Those that the corpus's reader found come first. One speaker alone can't be split by speaker: the list is
    empty.
    """
    speakers = {clip.speaker for clip in corpus.clips}
    found = [protocol for protocol in corpus.protocols if set(protocol.speakers) <= speakers]
    return found + _shipped(corpus.name, speakers) or _grouped(speakers, corpus.sex)


def _shipped(corpus: str, speakers: set[str]) -> list[Protocol]:
    shipped = importlib.resources.files("emofuse_jax.data.writing") / "protocols"
    found = []
    for file in sorted(shipped.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            values = json.loads(file.read_text(encoding="utf-8"))
            if values["corpus"] == corpus and set(values["speakers"]) <= speakers:
                folds, held = (tuple(map(tuple, values.get(key, ()))) for key in ("folds", "validation"))
                name = file.name.removesuffix(".json")
                found.append(Protocol(name, tuple(values["speakers"]), folds, held))
    return found


def _grouped(speakers: set[str], sex: dict[str, str]) -> list[Protocol]:
    count = min(MOST_FOLDS, len(speakers))
    if count < 2:
        return []
    dealt = _alternating(speakers, sex, "grouped")
    folds = tuple(tuple(sorted(dealt[i::count])) for i in range(count))
    return [Protocol(f"grouped_{count}fold", tuple(sorted(speakers)), folds)]


def make_fold(protocol: Protocol, fold: int, rows: list[dict], sex: dict[str, str]) -> dict[str, list[str]]:
    """clip_ids of `train`, `validation` and `test` from the manifest's rows.

    Failed clips are nowhere; unlabelled ones may train (semi-supervised), never validate or test.
    """
    test = set(protocol.folds[fold])
    rest = set(protocol.speakers) - test
    if protocol.validation:
        validation = set(protocol.validation[fold])
    else:
        validation = set(held_out(rest, sex, f"{protocol.name}/{fold}"))
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        speaker, labelled = row["speaker"], int(row["label"]) >= 0
        part = "test" if speaker in test else "validation" if speaker in validation else "train"
        if row["status"] != "failed" and speaker in protocol.speakers and (labelled or part == "train"):
            parts[part].append(row["clip_id"])
    return parts


def held_out(speakers: set[str], sex: dict[str, str], key: str) -> list[str]:
    """A fifth of the speakers (at least one, none of one), the sexes in equal numbers where known."""
    count = max(1, round(VALIDATION_SHARE * len(speakers))) if len(speakers) > 1 else 0
    return sorted(_alternating(speakers, sex, key)[:count])


def _alternating(speakers: set[str], sex: dict[str, str], key: str) -> list[str]:
    """A seeded order in which the sexes take turns; by hash, so that it is the same for ever."""
    ranked = sorted(speakers, key=lambda name: hashlib.sha256(f"{key}/{name}".encode()).digest())
    groups: dict[str, list[str]] = {}
    for name in ranked:
        groups.setdefault(sex.get(name, ""), []).append(name)
    turn = {name: (i, group) for group in groups for i, name in enumerate(groups[group])}
    return sorted(ranked, key=lambda name: turn[name])


def write_splits(output: str, corpus: Corpus, rows: list[dict]) -> dict[tuple[str, int], dict]:
    """splits/<protocol>/fold_<i>.json and protocols/<protocol>.json; the folds by protocol and number."""
    os.makedirs(os.path.join(output, "splits"), exist_ok=True)
    folds = {}
    for protocol in protocols(corpus):
        write_json(os.path.join(output, "protocols", f"{protocol.name}.json"), _described(corpus, protocol))
        for i in range(len(protocol.folds)):
            parts = folds[protocol.name, i] = make_fold(protocol, i, rows, corpus.sex)
            write_json(os.path.join(output, "splits", protocol.name, f"fold_{i}.json"), parts)
    return folds


def _described(corpus: Corpus, protocol: Protocol) -> dict:
    """A protocol in the form of the shipped ones (data/writing/protocols/*.json)."""
    values = {"corpus": corpus.name, "speakers": protocol.speakers, "folds": protocol.folds}
    return values | ({"validation": protocol.validation} if protocol.validation else {})
