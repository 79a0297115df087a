"""Speaker-independent folds: test speakers by protocol, validation speakers a seeded part of the others."""

import hashlib
import importlib.resources
import json
import os

from emofuse_jax.data.writing.corpus import Corpus, EvaluationProtocol
from emofuse_jax.utils.files import write_json

VALIDATION_FRACTION = 0.2
"""Share of a fold's training speakers that are held out for validation."""
MAX_FOLDS = 5


def list_protocols(corpus: Corpus) -> list[EvaluationProtocol]:
    """The shipped protocols of a corpus whose speakers are all here; without one, seeded speaker groups.

    Those that the corpus's reader found come first. One speaker alone can't be split by speaker: the list is
    empty.
    """
    speakers = {clip.speaker for clip in corpus.clips}
    corpus_protocols = [protocol for protocol in corpus.protocols if set(protocol.speakers) <= speakers]
    return corpus_protocols + _shipped_protocols(corpus.name, speakers) or _grouped_protocols(
        speakers, corpus.sex
    )


def _shipped_protocols(corpus_name: str, speakers: set[str]) -> list[EvaluationProtocol]:
    folder = importlib.resources.files("emofuse_jax.data.writing") / "protocols"
    matching_protocols = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            values = json.loads(file.read_text(encoding="utf-8"))
            if values["corpus"] == corpus_name and set(values["speakers"]) <= speakers:
                folds, validation_folds = (
                    tuple(map(tuple, values.get(key, ()))) for key in ("folds", "validation")
                )
                name = file.name.removesuffix(".json")
                matching_protocols.append(
                    EvaluationProtocol(name, tuple(values["speakers"]), folds, validation_folds)
                )
    return matching_protocols


def _grouped_protocols(speakers: set[str], sex: dict[str, str]) -> list[EvaluationProtocol]:
    num_folds = min(MAX_FOLDS, len(speakers))
    if num_folds < 2:
        return []
    ordered_speakers = _alternate_sexes(speakers, sex, "grouped")
    folds = tuple(tuple(sorted(ordered_speakers[i::num_folds])) for i in range(num_folds))
    return [EvaluationProtocol(f"grouped_{num_folds}fold", tuple(sorted(speakers)), folds)]


def make_fold(
    protocol: EvaluationProtocol, fold: int, rows: list[dict], sex: dict[str, str]
) -> dict[str, list[str]]:
    """Lists the clip_ids of `train`, `validation` and `test` from the manifest's rows.

    Failed clips are nowhere; unlabelled ones may train (semi-supervised), never validate or test.
    """
    test_speakers = set(protocol.folds[fold])
    other_speakers = set(protocol.speakers) - test_speakers
    if protocol.validation:
        validation_speakers = set(protocol.validation[fold])
    else:
        validation_speakers = set(choose_validation_speakers(other_speakers, sex, f"{protocol.name}/{fold}"))
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        speaker, is_labelled = row["speaker"], int(row["label"]) >= 0
        part = (
            "test"
            if speaker in test_speakers
            else "validation"
            if speaker in validation_speakers
            else "train"
        )
        if row["status"] != "failed" and speaker in protocol.speakers and (is_labelled or part == "train"):
            parts[part].append(row["clip_id"])
    return parts


def choose_validation_speakers(speakers: set[str], sex: dict[str, str], seed_text: str) -> list[str]:
    """A fifth of the speakers (at least one, none of one), the sexes in equal numbers where known."""
    num_speakers = max(1, round(VALIDATION_FRACTION * len(speakers))) if len(speakers) > 1 else 0
    return sorted(_alternate_sexes(speakers, sex, seed_text)[:num_speakers])


def _alternate_sexes(speakers: set[str], sex: dict[str, str], seed_text: str) -> list[str]:
    """A seeded order in which the sexes take turns; by hash, so that it is the same for ever."""
    shuffled_speakers = sorted(
        speakers, key=lambda name: hashlib.sha256(f"{seed_text}/{name}".encode()).digest()
    )
    groups: dict[str, list[str]] = {}
    for name in shuffled_speakers:
        groups.setdefault(sex.get(name, ""), []).append(name)
    turns = {name: (i, group) for group in groups for i, name in enumerate(groups[group])}
    return sorted(shuffled_speakers, key=lambda name: turns[name])


def write_splits(output: str, corpus: Corpus, rows: list[dict]) -> dict[tuple[str, int], dict]:
    """splits/<protocol>/fold_<i>.json and protocols/<protocol>.json; the folds by protocol and number."""
    os.makedirs(os.path.join(output, "splits"), exist_ok=True)
    folds = {}
    for protocol in list_protocols(corpus):
        write_json(
            os.path.join(output, "protocols", f"{protocol.name}.json"), _protocol_to_dict(corpus, protocol)
        )
        for i in range(len(protocol.folds)):
            parts = folds[protocol.name, i] = make_fold(protocol, i, rows, corpus.sex)
            write_json(os.path.join(output, "splits", protocol.name, f"fold_{i}.json"), parts)
    return folds


def _protocol_to_dict(corpus: Corpus, protocol: EvaluationProtocol) -> dict:
    """A protocol in the form of the shipped ones (data/writing/protocols/*.json)."""
    values = {"corpus": corpus.name, "speakers": protocol.speakers, "folds": protocol.folds}
    return values | ({"validation": protocol.validation} if protocol.validation else {})
