"""Builds the tables of the reports as lists of text for the templates."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict, TypeVar

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import text
from emofuse_jax.scoring.result_types import (
    INTERVAL_FIELDS,
    EvaluationResults,
    Metric,
    PooledPredictions,
    ScoreFields,
    SpeakerScores,
)

MAX_MISTAKES = 8

Entry = TypeVar("Entry")


class ScoreCell(TypedDict):
    """A score in per cent as text, with its interval."""

    value: str
    interval: str


class ColumnHeading(TypedDict):
    """Heading of a column of scores."""

    name: str
    meaning: str


class ScoreTableRow(TypedDict):
    """Row of a table of scores."""

    key: str
    name: str
    cells: list[ScoreCell]
    ceiling: str


class ScoreTable(TypedDict):
    """Table of scores."""

    columns: list[ColumnHeading]
    rows: list[ScoreTableRow]


class RecallRow(TypedDict):
    """Recall of one class."""

    name: str
    clips: str
    """Number of clips labelled with the class."""
    cells: list[str]
    """Recall for each modality."""


class SpeakerRow(TypedDict):
    """Scores of one speaker as text."""

    name: str
    ua: str
    wa: str
    clips: int | str
    """Number of clips, or a dash."""


class MistakeRow(TypedDict):
    """A clip that was classified wrongly."""

    confidence: str
    """Probability of the prediction in per cent."""
    clip: str
    speaker: str
    label: str
    prediction: str
    truth: str
    """Probability of the label in per cent."""


def provenance_rows(results: EvaluationResults) -> list[tuple[str, str]]:
    """Returns pairs of label and text that name the source of the results; unknown values are left out.

    The labels are Config, Dataset (last part of its path), Corpus, Protocol, Fold, Split, Clips and Speakers
    (their numbers), Checkpoint (`step 120`) and Date, in this order.
    """
    clips = len(list_or_empty(results.get("clips")))
    speakers = len(set(list_or_empty(results.get("speakers"))))
    dataset = results.get("dataset")
    facts = {
        "Config": results.get("config"),
        "Dataset": os.path.basename(os.path.normpath(dataset)) if dataset else None,
        "Corpus": results.get("corpus"),
        "Protocol": results.get("protocol"),
        "Fold": results.get("fold"),
        "Split": results.get("split"),
        "Clips": clips or None,
        "Speakers": speakers or None,
        "Checkpoint": f"step {results['checkpoint_step']}" if "checkpoint_step" in results else None,
        "Date": results.get("date"),
    }
    return [(label, str(value)) for label, value in facts.items() if value is not None]


def score_table(
    rows: Mapping[str, ScoreFields], names: Mapping[str, str], ceilings: Mapping[str, float] | None = None
) -> ScoreTable:
    """Builds a table of scores in per cent, with intervals.

    Args:
      rows: maps a key to scores as fractions (`wa`, `ua`, `wf1`, `mf1`) and their `<metric>_interval`.
      names: maps a key to the name shown; keys without an entry are shown unchanged.
      ceilings: best possible accuracy (a fraction) by key; may have keys that are not in `rows`.

    Returns:
      A dict. `columns`: for each metric that a row has, a dict with its `name` and its `meaning`. `rows`: for
      each row a dict with `key`, `name`, `cells` (for each column a dict with the texts `value` and
      `interval`) and `ceiling` (the best possible accuracy). Values are in per cent; an unknown value is a
      dash, an unknown interval is empty.

    Raises:
      ValueError: if an interval does not have two bounds.
    """
    columns = [key for key in text.METRIC_NAMES if any(key in row for row in rows.values())]
    table_rows: list[ScoreTableRow] = [
        {
            "key": key,
            "name": names.get(key, key),
            "cells": [score_cell(row, column) for column in columns],
            "ceiling": text.format_percent((ceilings or {}).get(key)),
        }
        for key, row in rows.items()
    ]
    headings: list[ColumnHeading] = [
        {"name": text.METRIC_NAMES[key][0], "meaning": text.METRIC_NAMES[key][1]} for key in columns
    ]
    return {"columns": headings, "rows": table_rows}


def recall_rows(modalities: Mapping[str, ScoreFields], classes: Sequence[str]) -> list[RecallRow]:
    """Returns a row for each class with its recall in each modality.

    Args:
      modalities: maps a modality to its scores, of which `recall` and `confusion` are used; at least one.
      classes: names of the classes.

    Returns:
      A dict for each class, in the order of `classes`: `name`; `clips`, the number of clips labelled with the
      class, as text; and `cells`, a list of texts in the order of `modalities`: the recall in each modality
      in per cent, a dash if it is not known.

    Raises:
      StopIteration: if there is no modality.
      KeyError: if a modality has no `recall`, or the first one no `confusion`.
      IndexError: if one of these has fewer entries than there are classes.
    """
    first = next(iter(modalities.values()))
    return [
        {
            "name": name,
            "clips": f"{sum(first['confusion'][index]):g}",
            "cells": [text.format_percent(row["recall"][index]) for row in modalities.values()],
        }
        for index, name in enumerate(classes)
    ]


def speaker_rows(rows: Mapping[str, SpeakerScores]) -> list[SpeakerRow]:
    """Returns a row for each speaker as a dict: `name`, `ua`, `wa` and `clips`.

    `ua` and `wa` are texts in per cent, and `clips` is the number of clips; each is a dash if it is not
    known. The speaker with the highest UA comes first; speakers without a known UA come last.
    """
    sorted_names = sorted(
        rows, key=lambda name: -rows[name]["ua"] if text.is_finite(rows[name].get("ua")) else 1.0
    )
    return [
        {
            "name": name,
            "ua": text.format_percent(rows[name].get("ua")),
            "wa": text.format_percent(rows[name].get("wa")),
            "clips": rows[name].get("clips", text.DASH),
        }
        for name in sorted_names
    ]


def mistake_rows(
    results: EvaluationResults | PooledPredictions, max_rows: int = MAX_MISTAKES
) -> list[MistakeRow]:
    """Returns the labelled clips that were classified wrongly with the highest probability.

    Args:
      results: `classes`, and one entry per clip in `clips`, `labels` (-1 without a label), `speakers` and
        `probabilities`.
      max_rows: maximum number of rows, by default 8.

    Returns:
      A dict of texts for each clip: `clip` (its clip_id), `speaker`, `label` and `prediction` (names of the
      true and the predicted class), `confidence` and `truth` (probabilities of the predicted and the true
      class in per cent). The most confident mistake comes first. An empty list if there are no mistakes or no
      predictions.

    Raises:
      ValueError: if the four lists differ in length, or a clip has no probabilities.
      IndexError: if the label of a clip is not the index of a class.
    """
    classes = results["classes"]
    wrong: list[tuple[float, str, str, int, int, float]] = []
    for clip, label, speaker, row in zip(
        list_or_empty(results.get("clips")),
        list_or_empty(results.get("labels")),
        list_or_empty(results.get("speakers")),
        list_or_empty(results.get("probabilities")),
        strict=True,
    ):
        predicted = _most_probable(row)
        if label >= 0 and predicted != label and text.is_finite(row[predicted]):
            wrong.append((row[predicted], clip, speaker, label, predicted, row[label]))
    wrong.sort(key=lambda entry: (-entry[0], entry[1]))
    return [
        {
            "confidence": text.format_percent(confidence),
            "clip": clip,
            "speaker": speaker,
            "label": classes[label],
            "prediction": classes[predicted],
            "truth": text.format_percent(truth),
        }
        for confidence, clip, speaker, label, predicted, truth in wrong[:max_rows]
    ]


def _most_probable(row: Sequence[float] | Float[np.ndarray, " c"]) -> int:
    """Returns the index of the highest probability; NaN and infinity count as the lowest.

    It is the first one if several are equal. Raises ValueError if `row` is empty.
    """
    probabilities = np.asarray(row, np.float64)
    return int(np.where(np.isfinite(probabilities), probabilities, -1.0).argmax())


def list_or_empty(values: Collection[Entry] | None) -> Collection[Entry]:
    """Returns `values` unchanged, or an empty tuple if it is None."""
    return () if values is None else values


def score_cell(row: ScoreFields, metric: Metric) -> ScoreCell:
    """Returns the score `metric` and its interval as text in per cent: `{"value": ..., "interval": ...}`.

    `metric` is `ua`, `wa`, `wf1` or `mf1`. `row` has the score, a fraction, under this name, and the interval
    `[low, high]` under `<metric>_interval`. `value` is a dash if the score is None, NaN or missing;
    `interval` is a text such as `65.0–77.0`, empty if the interval is not known. Raises ValueError if the
    interval does not have two bounds.
    """
    return {
        "value": text.format_percent(row.get(metric)),
        "interval": text.format_interval(row.get(INTERVAL_FIELDS[metric])),
    }
