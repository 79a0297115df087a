"""The tables of the report as plain lists of text, ready for the template."""

import os
from collections.abc import Mapping

from emofuse_jax.reporting import text

MAX_MISTAKES = 8


def provenance_rows(results: Mapping) -> list[tuple[str, str]]:
    """Where the numbers come from, as label and value; what is not known is left out."""
    clips, speakers = len(get_list(results, "clips")), len(set(get_list(results, "speakers")))
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
    rows: Mapping[str, Mapping], names: Mapping[str, str], ceilings: Mapping | None = None
) -> dict:
    """A table of scores with intervals: ``{"columns", "rows": [{"key", "name", "cells", "ceiling"}]}``.

    Only metrics that some row has become columns; `ceilings`, the best possible scores by
    key, may have keys that no row has.
    """
    columns = [key for key in text.METRIC_NAMES if any(key in row for row in rows.values())]
    table_rows = [
        {
            "key": key,
            "name": names.get(key, key),
            "cells": [_score_cell(row, column) for column in columns],
            "ceiling": text.format_percent((ceilings or {}).get(key)),
        }
        for key, row in rows.items()
    ]
    headings = [{"name": text.METRIC_NAMES[key][0], "meaning": text.METRIC_NAMES[key][1]} for key in columns]
    return {"columns": headings, "rows": table_rows}


def recall_rows(modalities: Mapping[str, Mapping], classes) -> list[dict]:
    """A row for each class: clips of the truth, and recall in each modality."""
    first = next(iter(modalities.values()))
    return [
        {
            "name": name,
            "clips": f"{sum(first['confusion'][index]):g}",
            "cells": [text.format_percent(row["recall"][index]) for row in modalities.values()],
        }
        for index, name in enumerate(classes)
    ]


def speaker_rows(rows: Mapping[str, Mapping]) -> list[dict]:
    """A row for each speaker, best UA first; unknown ones last."""
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


def mistake_rows(results: Mapping, max_rows: int = MAX_MISTAKES) -> list[dict]:
    """The clips that are wrong with the highest probability: the first ones to listen to."""
    classes, wrong = results["classes"], []
    names = ("clips", "labels", "speakers", "probabilities")
    for clip, label, speaker, row in zip(*(get_list(results, name) for name in names), strict=True):
        predicted = max(
            range(len(classes)), key=lambda index: row[index] if text.is_finite(row[index]) else -1.0
        )
        if label >= 0 and predicted != label and text.is_finite(row[predicted]):
            wrong.append((row[predicted], clip, speaker, classes[label], classes[predicted], row[label]))
    wrong.sort(key=lambda entry: (-entry[0], entry[1]))
    keys = ("confidence", "clip", "speaker", "label", "prediction", "truth")
    rows = [dict(zip(keys, entry, strict=True)) for entry in wrong[:max_rows]]
    return [
        row
        | {"confidence": text.format_percent(row["confidence"]), "truth": text.format_percent(row["truth"])}
        for row in rows
    ]


def get_list(results: Mapping, name: str):
    """A list or array of `results`, empty where it is absent."""
    values = results.get(name)
    return () if values is None else values


def _score_cell(row: Mapping, column: str) -> dict[str, str]:
    return {
        "value": text.format_percent(row.get(column)),
        "interval": text.format_interval(row.get(f"{column}_interval")),
    }
