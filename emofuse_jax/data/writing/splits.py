"""Writes speaker-independent folds: protocols name the test speakers, a seed selects validation speakers."""

import hashlib
import importlib.resources
import json
import os
from collections.abc import Sequence

from emofuse_jax.data.metadata import FoldParts, ManifestRow, ProtocolDict, Split
from emofuse_jax.data.writing.corpus import Corpus, EvaluationProtocol
from emofuse_jax.utils.files import write_json

VALIDATION_FRACTION = 0.2
"""Fraction of the speakers that are not tested in a fold which are used for validation."""
MAX_FOLDS = 5
"""Number of folds of corpora without a protocol; fewer if there are fewer speakers."""


def list_protocols(corpus: Corpus) -> list[EvaluationProtocol]:
    """Returns the protocols of a corpus whose speakers are all present.

    First come those of the corpus reader, then the shipped ones. If there are none, the result is a single
    protocol with up to MAX_FOLDS (5) seeded groups of speakers; with only one speaker it is empty. A protocol
    has `name`, `speakers`, `folds` (test speakers of each fold) and `validation` (validation speakers of each
    fold; empty if `make_fold` selects them).
    """
    speakers = {clip.speaker for clip in corpus.clips}
    corpus_protocols = [protocol for protocol in corpus.protocols if set(protocol.speakers) <= speakers]
    return corpus_protocols + _shipped_protocols(corpus.name, speakers) or _grouped_protocols(
        speakers, corpus.sex
    )


def _shipped_protocols(corpus_name: str, speakers: set[str]) -> list[EvaluationProtocol]:
    """Returns the shipped protocols of a corpus whose speakers are all in `speakers`, sorted by name.

    They are the files protocols/*.json next to this module; the list is empty if none is for this corpus. A
    protocol has `name`, `speakers`, `folds` (test speakers of each fold) and `validation` (validation
    speakers of each fold; empty if `make_fold` selects them).
    """
    folder = importlib.resources.files("emofuse_jax.data.writing") / "protocols"
    matching_protocols = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            values: ProtocolDict = json.loads(file.read_text(encoding="utf-8"))
            if values["corpus"] == corpus_name and set(values["speakers"]) <= speakers:
                folds = tuple(map(tuple, values["folds"]))
                validation_folds = tuple(map(tuple, values.get("validation", ())))
                name = file.name.removesuffix(".json")
                matching_protocols.append(
                    EvaluationProtocol(name, tuple(values["speakers"]), folds, validation_folds)
                )
    return matching_protocols


def _grouped_protocols(speakers: set[str], sex: dict[str, str]) -> list[EvaluationProtocol]:
    """Returns a list with one protocol, named `grouped_<n>fold`; an empty list for fewer than two speakers.

    It has `name`, `speakers` and `folds`, the test speakers of each of n folds, at most MAX_FOLDS (5): seeded
    groups of about equal size, in which the sexes are mixed. `sex` is 'f' or 'm' by speaker, for speakers
    whose sex is known.
    """
    num_folds = min(MAX_FOLDS, len(speakers))
    if num_folds < 2:
        return []
    ordered_speakers = _alternate_sexes(speakers, sex, "grouped")
    folds = tuple(tuple(sorted(ordered_speakers[i::num_folds])) for i in range(num_folds))
    return [EvaluationProtocol(f"grouped_{num_folds}fold", tuple(sorted(speakers)), folds)]


def make_fold(
    protocol: EvaluationProtocol, fold: int, rows: Sequence[ManifestRow], sex: dict[str, str]
) -> FoldParts:
    """Returns a dict with three lists of clip_ids, `train`, `validation` and `test`, in manifest order.

    `test` has the clips of the fold's test speakers, and `validation` those of its validation speakers: the
    protocol's or, if it names none, a seeded fifth of the other speakers. `train` has the rest. Failed clips,
    and clips of speakers that the protocol does not use, are in no list. Unlabelled clips are only in `train`
    (for semi-supervised learning).

    Args:
      protocol: The evaluation protocol.
      fold: Number of the fold, from 0.
      rows: Rows of the manifest.
      sex: 'f' or 'm' by speaker, to select validation speakers of both sexes.

    Raises:
      IndexError: The protocol has no such fold.
    """
    test_speakers = set(protocol.folds[fold])
    other_speakers = set(protocol.speakers) - test_speakers
    if protocol.validation:
        validation_speakers = set(protocol.validation[fold])
    else:
        validation_speakers = set(choose_validation_speakers(other_speakers, sex, f"{protocol.name}/{fold}"))
    parts: FoldParts = {"train": [], "validation": [], "test": []}
    for row in rows:
        speaker, is_labelled = row["speaker"], int(row["label"]) >= 0
        part: Split = (
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
    """Returns the sorted names of a fifth of the speakers, selected by a hash of `seed_text` and the name.

    The number is rounded and at least 1; the list is empty if there are fewer than two speakers. If the sexes
    are known, they take turns, so that their numbers are about equal; `sex` is 'f' or 'm' by speaker.
    """
    num_speakers = max(1, round(VALIDATION_FRACTION * len(speakers))) if len(speakers) > 1 else 0
    return sorted(_alternate_sexes(speakers, sex, seed_text)[:num_speakers])


def _alternate_sexes(speakers: set[str], sex: dict[str, str], seed_text: str) -> list[str]:
    """Returns the speakers in a seeded order in which the sexes take turns.

    The order depends on hashes of `seed_text` and the name, not on a random generator, so that it is the same
    in all versions. `sex` is 'f' or 'm' by speaker; speakers that it lacks form a third group.
    """
    shuffled_speakers = sorted(
        speakers, key=lambda name: hashlib.sha256(f"{seed_text}/{name}".encode()).digest()
    )
    groups: dict[str, list[str]] = {}
    for name in shuffled_speakers:
        groups.setdefault(sex.get(name, ""), []).append(name)
    turns = {name: (i, group) for group in groups for i, name in enumerate(groups[group])}
    return sorted(shuffled_speakers, key=lambda name: turns[name])


def write_splits(
    output: str, corpus: Corpus, rows: Sequence[ManifestRow]
) -> dict[tuple[str, int], FoldParts]:
    """Writes splits/<protocol>/fold_<i>.json and protocols/<protocol>.json for all protocols of a corpus.

    Both folders are in `output`; existing files of the same name are replaced.

    Args:
      output: Directory of the records.
      corpus: The corpus.
      rows: Rows of the manifest.

    Returns:
      For each (protocol name, number of the fold) the content of the fold: a dict with lists of clip_ids,
      `train`, `validation` and `test`. Empty if the corpus has only one speaker.

    Raises:
      OSError: A file cannot be written.
      ValueError: A name cannot be encoded as UTF-8.
    """
    os.makedirs(os.path.join(output, "splits"), exist_ok=True)
    folds: dict[tuple[str, int], FoldParts] = {}
    for protocol in list_protocols(corpus):
        write_json(
            os.path.join(output, "protocols", f"{protocol.name}.json"), _protocol_to_dict(corpus, protocol)
        )
        for i in range(len(protocol.folds)):
            parts = folds[protocol.name, i] = make_fold(protocol, i, rows, corpus.sex)
            write_json(os.path.join(output, "splits", protocol.name, f"fold_{i}.json"), parts)
    return folds


def _protocol_to_dict(corpus: Corpus, protocol: EvaluationProtocol) -> ProtocolDict:
    """Returns a dict for JSON: `corpus` (its name), `speakers` and `folds` (test speakers of each fold).

    If the protocol fixes the validation speakers of each fold, these are in `validation`.
    """
    values: ProtocolDict = {"corpus": corpus.name, "speakers": protocol.speakers, "folds": protocol.folds}
    if protocol.validation:
        values["validation"] = protocol.validation
    return values
