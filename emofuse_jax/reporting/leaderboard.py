"""Builds the leaderboard: a table of all results below a folder, from cross-validations and evaluations."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

from emofuse_jax.reporting import page
from emofuse_jax.reporting.tables import ScoreCell, score_cell
from emofuse_jax.scoring.result_checks import check_crossval_results, check_evaluation_results
from emofuse_jax.scoring.result_marks import corpus_marks
from emofuse_jax.scoring.result_types import (
    SUMMARY_METRICS,
    ClipPredictions,
    CrossvalFile,
    EvaluationResults,
    Metric,
    ScoreFields,
)
from emofuse_jax.utils.files import read_json_object, write_atomic

RESULTS_FILE_NAME, PAGE_FILE_NAME = "results.json", "leaders.html"

GroupKey = tuple[str, str, str, str]
"""Corpus, number of classes, protocol and split, as text; only results with equal keys are comparable."""


class ResultRow(TypedDict):
    """One result of the leaderboard."""

    config: str
    """Name of the config."""
    group: GroupKey
    folds: str
    speakers: int
    """Number of speakers."""
    clips: int
    """Number of clips."""
    scores: ScoreFields
    """Scores of the pooled predictions of a cross-validation, or of the first modality of an evaluation."""
    marks: list[str]
    """Warnings."""
    date: str
    path: NotRequired[str]
    """Folder of the file, relative to the folder that was searched."""


class PageRow(TypedDict):
    """One result as text for the page."""

    config: str
    folds: str
    speakers: int
    clips: int
    scores: dict[Metric, ScoreCell]
    marks: str
    """First word of each warning."""
    date: str
    path: str


def find_results(folder: str, metric: Metric = "ua") -> tuple[list[ResultRow], list[str]]:
    """Reads every results.json below `folder` that `emofuse crossval` or `emofuse evaluate` wrote.

    Args:
      folder: is searched with all its subfolders.
      metric: `ua`, `wa` or `wf1`; within a group the row with the highest value comes first. The groups are
        sorted as text.

    Returns:
      `(rows, skipped_files)`. A row is a dict: `config` (its name), `group`, `folds` (text, such as `5 runs`
      or `fold 2`), `speakers` and `clips` (their numbers), `scores` (fractions, with intervals), `marks`
      (warnings), `date`, and `path`, the folder of the file relative to `folder`. `group` is a tuple of
      texts: corpus, number of classes, protocol and split; rows of a group are neighbours. `skipped_files`
      has the paths, which begin with `folder`, of the results.json files that other programs wrote or that
      are damaged. Both lists are empty if `folder` does not exist.

    Raises:
      OSError: if a results.json cannot be read.
      KeyError: if a result does not have the score `metric`.
    """
    rows: list[ResultRow] = []
    skipped_files = []
    for path in find_result_files(folder):
        row = read_result_row(path)
        if row is None:
            skipped_files.append(path)
        else:
            row["path"] = os.path.relpath(os.path.dirname(path), folder)
            rows.append(row)
    rows.sort(key=lambda row: (row["group"], -row["scores"][metric]))
    return rows, skipped_files


def find_result_files(folder: str) -> Iterator[str]:
    """Yields the path of every results.json in `folder` and its subfolders.

    The folders are searched in alphabetical order, each before its subfolders. The paths begin with `folder`.
    Folders that do not exist or cannot be read give no paths.
    """
    for directory, subfolders, file_names in os.walk(folder):
        subfolders.sort()
        if RESULTS_FILE_NAME in file_names:
            yield os.path.join(directory, RESULTS_FILE_NAME)


def read_result_row(path: str) -> ResultRow | None:
    """Reads one results.json.

    Returns:
      A dict: `config` (its name), `group` (corpus, number of classes, protocol and split as a tuple of
      texts), `folds` (text, such as `5 runs` or `fold 2`), `speakers` and `clips` (their numbers), `scores`
      (fractions; the pooled ones of a cross-validation, or those of the first modality of an evaluation),
      `marks` (warnings) and `date`. None if the file is not JSON, was not written by `emofuse crossval` or
      `emofuse evaluate`, or is damaged.

    Raises:
      OSError: if the file cannot be read.
    """
    try:
        results = read_json_object(path, config=str)
        if "pooled" in results:
            return _crossval_row(check_crossval_results(path, results))
        return _evaluation_row(check_evaluation_results(path, results))
    except ValueError:
        return None


def _crossval_row(results: CrossvalFile) -> ResultRow:
    runs = results["runs"]
    return _make_row(results, runs, results["pooled"], split="test", folds=f"{len(runs)} runs")


def _evaluation_row(results: EvaluationResults) -> ResultRow:
    scores, folds = next(iter(results["modalities"].values())), f"fold {results['fold']}"
    return _make_row(results, [results], scores, split=results["split"], folds=folds)


def _make_row(
    results: CrossvalFile | EvaluationResults,
    runs: Sequence[ClipPredictions],
    scores: ScoreFields,
    *,
    split: str,
    folds: str,
) -> ResultRow:
    return {
        "config": results["config"],
        "group": (results["corpus"], f"{len(results['classes'])} classes", results["protocol"], split),
        "folds": folds,
        "speakers": len({name for run in runs for name in run["speakers"]}),
        "clips": len({name for run in runs for name in run["clips"]}),
        "scores": scores,
        "marks": corpus_marks(results["corpus"], results["leaks"]),
        "date": results.get("date", ""),
    }


def write_leaderboard(
    folder: str, output: str = "", metric: Metric = "ua"
) -> tuple[str, list[ResultRow], list[str]]:
    """Writes the leaderboard as an HTML page.

    Args:
      folder: is searched for results.json files with all its subfolders.
      output: path of the page; if empty, `leaders.html` in `folder`. Missing folders are created, and an
        existing file is replaced.
      metric: `ua`, `wa` or `wf1`; the best row of each group comes first. A group has the same corpus, number
        of classes, protocol and split.

    Returns:
      `(path, rows, skipped_files)`: the path of the page; a dict for each result with `config`, `group`,
      `folds`, `speakers`, `clips`, `scores` (fractions), `marks` (warnings), `date` and `path` (its folder,
      relative to `folder`); and the paths of the results.json files that were skipped because other programs
      wrote them or they are damaged.

    Raises:
      ValueError: if no results were found.
      OSError: if a file cannot be read or the page cannot be written.
      KeyError: if a result does not have the score `metric`.
    """
    rows, skipped_files = find_results(folder, metric)
    if not rows:
        raise ValueError(
            f"{folder}: no {RESULTS_FILE_NAME} found; expected the output of emofuse crossval or evaluate in"
            " this folder or its subfolders"
        )
    groups: dict[GroupKey, list[PageRow]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(format_row(row))
    html = page.render_html(
        "leaders.html",
        title=f"Results in {os.path.basename(os.path.abspath(folder))}",
        marks=sorted({mark for row in rows for mark in row["marks"]}),
        facts=[("Results", str(len(rows)))],
        versions={},
        groups=[(", ".join(group), group_rows) for group, group_rows in groups.items()],
    )
    path = pathlib.Path(output or os.path.join(folder, PAGE_FILE_NAME))
    write_atomic(path, html.encode())
    return str(path), rows, skipped_files


def format_row(row: ResultRow) -> PageRow:
    """Returns a row for the page as a dict: the fields of `row` without `group`, with two of them as text.

    `scores` has a dict for each of `ua`, `wa` and `wf1`: `value`, the score in per cent or a dash, and
    `interval`, such as `65.0–77.0` or empty. `marks` is a text with the part before the colon of each
    warning, sorted, without duplicates and separated by commas. `config`, `folds`, `speakers`, `clips`,
    `date` and `path` are unchanged. Raises ValueError if an interval does not have two bounds.
    """
    return {
        "config": row["config"],
        "folds": row["folds"],
        "speakers": row["speakers"],
        "clips": row["clips"],
        "scores": {name: score_cell(row["scores"], name) for name in SUMMARY_METRICS},
        "marks": ", ".join(sorted({mark.split(":")[0] for mark in row["marks"]})),
        "date": row["date"],
        "path": row["path"],
    }
