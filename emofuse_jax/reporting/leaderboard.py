"""A table of all results below a folder, best first: cross-validations and scored single models."""

import json
import os
import pathlib
from collections.abc import Iterator

from emofuse_jax.reporting import page, text
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.utils.files import write_atomic

RESULTS_FILE_NAME, PAGE_FILE_NAME = "results.json", "leaders.html"


def find_results(folder: str, metric: str = "ua") -> tuple[list[dict], list[str]]:
    """A row for each results.json below `folder`, and the files of that name that are none of ours.

    Rows of one corpus, classes, protocol and part stand together; of a cross-validation the score is that of
    all answers pooled. The best `metric` (ua, wa or wf1) first.
    """
    rows, skipped_files = [], []
    for path in find_result_files(folder):
        row = read_result_row(path)
        if row is None:
            skipped_files.append(path)
        else:
            rows.append(row | {"path": os.path.relpath(os.path.dirname(path), folder)})
    rows.sort(key=lambda row: (row["group"], -row["scores"][metric]))
    return rows, skipped_files


def find_result_files(folder: str) -> Iterator[str]:
    """Paths of all results.json, in order."""
    for directory, subfolders, file_names in os.walk(folder):
        subfolders.sort()
        if RESULTS_FILE_NAME in file_names:
            yield os.path.join(directory, RESULTS_FILE_NAME)


def read_result_row(path: str) -> dict | None:
    """What a table says of a result; None where the file is not one of crossval or evaluate."""
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
        kind = "crossval" if "pooled" in results else "evaluate"
        scores = results["pooled"] if kind == "crossval" else next(iter(results["modalities"].values()))
        runs = results["runs"] if kind == "crossval" else [results]
        split = "test" if kind == "crossval" else results["split"]
        return {
            "config": results["config"],
            "group": (results["corpus"], f"{len(results['classes'])} classes", results["protocol"], split),
            "folds": f"{len(runs)} runs" if kind == "crossval" else f"fold {results['fold']}",
            "speakers": len({name for run in runs for name in run["speakers"]}),
            "clips": len({name for run in runs for name in run["clips"]}),
            "scores": scores,
            "marks": corpus_marks(results["corpus"], results["leaks"]),
            "date": results.get("date", ""),
        }
    except (AttributeError, KeyError, TypeError, StopIteration, json.JSONDecodeError):
        return None


def write_leaderboard(folder: str, output: str = "", metric: str = "ua") -> tuple[str, list[dict], list[str]]:
    """Writes the page to `output`, by default `leaders.html` in the folder, in the order of `metric`.

    Gives its path, the rows, and files that are no results of ours.

    Raises ValueError where there are no results.
    """
    rows, skipped_files = find_results(folder, metric)
    if not rows:
        raise ValueError(f"{folder}: no {RESULTS_FILE_NAME} of emofuse crossval or evaluate below it")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(format_row(row))
    html = page.render_html(
        "leaders.html",
        title=f"Results below {os.path.basename(os.path.abspath(folder))}",
        marks=sorted({mark for row in rows for mark in row["marks"]}),
        facts=[("Results", str(len(rows)))],
        versions={},
        groups=[(", ".join(group), group_rows) for group, group_rows in groups.items()],
    )
    path = pathlib.Path(output or os.path.join(folder, PAGE_FILE_NAME))
    write_atomic(path, html.encode())
    return str(path), rows, skipped_files


def format_row(row: dict) -> dict:
    """A row as text."""
    scores = row["scores"]
    formatted_scores = {
        name: {
            "value": text.format_percent(scores.get(name)),
            "interval": text.format_interval(scores.get(f"{name}_interval")),
        }
        for name in ("ua", "wa", "wf1")
    }
    short_marks = ", ".join(sorted({mark.split(":")[0] for mark in row["marks"]}))
    return row | {"scores": formatted_scores, "marks": short_marks}
