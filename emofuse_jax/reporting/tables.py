"""The tables of the report as plain lists of text, ready for the template."""

import os
from collections.abc import Mapping

from emofuse_jax.reporting import text

MISTAKES = 8


def provenance(results: Mapping) -> list[tuple[str, str]]:
    """Where the numbers come from, as label and value; what is not known is left out."""
    clips, speakers = len(listed(results, "clips")), len(set(listed(results, "speakers")))
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


def scores(rows: Mapping[str, Mapping], names: Mapping[str, str], limits: Mapping | None = None) -> dict:
    """A table of scores with intervals: ``{"columns", "rows": [{"key", "name", "cells", "ceiling"}]}``.

    Only metrics that some row has become columns; `limits` (the ceilings) keeps names that no row has, too.
    """
    columns = [key for key in text.METRICS if any(key in row for row in rows.values())]
    table = [
        {
            "key": key,
            "name": names.get(key, key),
            "cells": [_cell(row, column) for column in columns],
            "ceiling": text.percent((limits or {}).get(key)),
        }
        for key, row in rows.items()
    ]
    headings = [{"name": text.METRICS[key][0], "meaning": text.METRICS[key][1]} for key in columns]
    return {"columns": headings, "rows": table}


def recalls(modalities: Mapping[str, Mapping], classes) -> list[dict]:
    """A row for each class: clips of the truth, and recall in each modality."""
    first = next(iter(modalities.values()))
    return [
        {
            "name": name,
            "clips": f"{sum(first['confusion'][index]):g}",
            "cells": [text.percent(row["recall"][index]) for row in modalities.values()],
        }
        for index, name in enumerate(classes)
    ]


def speakers(rows: Mapping[str, Mapping]) -> list[dict]:
    """A row for each speaker, best UA first; unknown ones last."""
    order = sorted(rows, key=lambda name: -rows[name]["ua"] if text.known(rows[name].get("ua")) else 1.0)
    return [
        {
            "name": name,
            "ua": text.percent(rows[name].get("ua")),
            "wa": text.percent(rows[name].get("wa")),
            "clips": rows[name].get("clips", text.DASH),
        }
        for name in order
    ]


def mistakes(results: Mapping, count: int = MISTAKES) -> list[dict]:
    """The clips that are wrong with the highest probability: the first ones to listen to."""
    classes, wrong = results["classes"], []
    names = ("clips", "labels", "speakers", "probabilities")
    for clip, label, speaker, row in zip(*(listed(results, name) for name in names), strict=True):
        guess = max(range(len(classes)), key=lambda index: row[index] if text.known(row[index]) else -1.0)
        if label >= 0 and guess != label and text.known(row[guess]):
            wrong.append((row[guess], clip, speaker, classes[label], classes[guess], row[label]))
    wrong.sort(key=lambda entry: (-entry[0], entry[1]))
    keys = ("confidence", "clip", "speaker", "label", "prediction", "truth")
    rows = [dict(zip(keys, entry, strict=True)) for entry in wrong[:count]]
    return [
        row | {"confidence": text.percent(row["confidence"]), "truth": text.percent(row["truth"])}
        for row in rows
    ]


def listed(results: Mapping, name: str):
    """A list or array of `results`, empty where it is absent."""
    found = results.get(name)
    return () if found is None else found


def _cell(row: Mapping, column: str) -> dict[str, str]:
    return {"value": text.percent(row.get(column)), "interval": text.interval(row.get(f"{column}_interval"))}
