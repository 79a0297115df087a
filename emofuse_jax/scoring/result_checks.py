"""Validates results that were read from a JSON file; a message names the file, the field and the remedy."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from emofuse_jax.scoring.result_types import (
    INTERVAL_FIELDS,
    SUMMARY_METRICS,
    CrossvalFile,
    EvaluationResults,
    ReplicaResult,
)

RUN_FIELDS: dict[str, type] = {
    **{"fold": int, "seed": int, "validation": dict, "test": dict},
    **dict.fromkeys(("clips", "speakers", "labels", "probabilities"), list),
}
"""Fields of a run, the contents of a `result.json`, with their types."""
EVALUATED_MODALITIES = ("both", "audio", "video")
CROSSVAL_REMEDY = "run the same cross-validation again to rewrite this file"
EVALUATION_REMEDY = "run emofuse evaluate again to rewrite this file"


def check_run(run: Mapping[str, object], location: str, num_classes: int, remedy: str) -> ReplicaResult:
    """Returns `run`, the result of one fold and seed, after validating it.

    Args:
      run: the contents of a `result.json`, or an entry of `runs` of a `results.json`. Its fields `best_step`
        and `epochs` are not checked.
      location: text before the name of a field in a message, such as `cv/results.json: field runs[0].`.
      num_classes: number of classes that the probabilities must have.
      remedy: what the user can do, the end of a message.

    Raises:
      ValueError: if a field is missing or invalid; the message names it.
    """
    _check_types(run, RUN_FIELDS, location, remedy)
    result = cast(ReplicaResult, run)
    clip_count = len(result["clips"])
    text_lists: dict[str, list[str]] = {"clips": result["clips"], "speakers": result["speakers"]}
    for field, entries in text_lists.items():
        if len(entries) != clip_count or not _are_texts(entries):
            raise ValueError(f"{location}{field}: expected {clip_count} strings, one per clip; {remedy}")
    labels = _check_numbers(result["labels"], (clip_count,), f"{location}labels", remedy)
    if not np.isin(labels, np.arange(-1, num_classes)).all():
        raise ValueError(
            f"{location}labels: expected -1 to {num_classes - 1}, a class or -1 for none; {remedy}"
        )
    _check_numbers(result["probabilities"], (clip_count, num_classes), f"{location}probabilities", remedy)
    _check_numbers(result.get("temperature"), (), f"{location}temperature", remedy)
    test_scores = [result["test"].get(name) for name in SUMMARY_METRICS]
    _check_numbers(test_scores, (len(SUMMARY_METRICS),), f"{location}test", remedy)
    if result["validation"].get("ua", "") is not None:  # null if no clips are held out
        _check_numbers(result["validation"].get("ua"), (), f"{location}validation.ua", remedy)
    return result


def check_crossval_results(path: str, results: Mapping[str, object]) -> CrossvalFile:
    """Returns `results`, the contents of the `results.json` of a cross-validation, after validating them.

    Checked are `classes`, `protocol`, `corpus`, `leaks`, `runs` (at least one, each by `check_run`) and
    `pooled` (scores, intervals and confusion matrix), but no other field. `path` is for the message.

    Raises:
      ValueError: if one of these fields is missing or invalid; the message names it.
    """
    location = f"{path}: field "
    for field in ("classes", "protocol", "runs", "corpus", "leaks", "pooled"):
        if field not in results:
            raise ValueError(
                f"{location}{field} is missing, expected a results.json that emofuse crossval wrote;"
                f" {CROSSVAL_REMEDY}"
            )
    _check_types(
        results, {"protocol": str, "corpus": str, "runs": list, "pooled": dict}, location, CROSSVAL_REMEDY
    )
    _check_texts(results, ("classes", "leaks"), location, CROSSVAL_REMEDY)
    crossval_results = cast(CrossvalFile, results)
    runs, num_classes = crossval_results["runs"], len(crossval_results["classes"])
    if not runs or not all(isinstance(run, dict) for run in runs):
        raise ValueError(f"{location}runs: expected a list of objects, at least one; {CROSSVAL_REMEDY}")
    for i, run in enumerate(runs):
        check_run(run, f"{location}runs[{i}].", num_classes, CROSSVAL_REMEDY)
    _check_scores(crossval_results["pooled"], f"{location}pooled", CROSSVAL_REMEDY)
    _check_numbers(
        crossval_results["pooled"].get("confusion"),
        (num_classes, num_classes),
        f"{location}pooled.confusion",
        CROSSVAL_REMEDY,
    )
    return crossval_results


def check_evaluation_results(path: str, results: Mapping[str, object]) -> EvaluationResults:
    """Returns `results`, the contents of the `results.json` of `emofuse evaluate`, after validating them.

    Checked are `config`, `corpus`, `protocol`, `split`, `fold`, `checkpoint_step`, `classes`, `leaks`,
    `clips`, `speakers`, and the scores in `modalities`, but not `labels`, `probabilities` and other fields.
    `path` is for the message.

    Raises:
      ValueError: if one of these fields is missing or invalid; the message names it.
    """
    location = f"{path}: field "
    field_types = dict.fromkeys(("config", "corpus", "protocol", "split"), str)
    _check_types(
        results,
        {**field_types, "fold": int, "checkpoint_step": int, "modalities": dict},
        location,
        EVALUATION_REMEDY,
    )
    _check_texts(results, ("classes", "leaks", "clips", "speakers"), location, EVALUATION_REMEDY)
    evaluation_results = cast(EvaluationResults, results)
    modalities = evaluation_results["modalities"]
    if not modalities or not set(modalities) <= {*EVALUATED_MODALITIES}:
        raise ValueError(
            f"{location}modalities: expected scores of {', '.join(EVALUATED_MODALITIES)}, at least one of"
            f" them; {EVALUATION_REMEDY}"
        )
    for name, scores in modalities.items():
        _check_scores(scores, f"{location}modalities.{name}", EVALUATION_REMEDY)
    return evaluation_results


def _check_scores(scores: object, location: str, remedy: str) -> None:
    """Raises ValueError if `scores` are not UA, WA and WF1 with their intervals; `location` names them."""
    if not isinstance(scores, dict):
        raise ValueError(f"{location}: expected an object, found {type(scores).__name__}; {remedy}")
    for name in SUMMARY_METRICS:
        interval_field = INTERVAL_FIELDS[name]
        _check_numbers(scores.get(name), (), f"{location}.{name}", remedy)
        _check_numbers(scores.get(interval_field), (2,), f"{location}.{interval_field}", remedy)


def _check_types(fields: Mapping[str, object], types: Mapping[str, type], location: str, remedy: str) -> None:
    for field, expected_type in types.items():
        if not isinstance(fields.get(field), expected_type):
            actual_type = type(fields.get(field)).__name__
            raise ValueError(
                f"{location}{field}: expected {expected_type.__name__}, found {actual_type}; {remedy}"
            )


def _check_texts(fields: Mapping[str, object], names: Sequence[str], location: str, remedy: str) -> None:
    for name in names:
        entries = fields.get(name)
        if not isinstance(entries, list) or not _are_texts(entries):
            raise ValueError(f"{location}{name}: expected a list of strings; {remedy}")


def _are_texts(entries: Sequence[object]) -> bool:
    return all(isinstance(entry, str) for entry in entries)


def _check_numbers(values: object, shape: tuple[int, ...], location: str, remedy: str) -> np.ndarray:
    """Returns the values as an array of integers or floats of this shape.

    Raises ValueError if they are not finite numbers of this shape; the message begins with `location`, the
    name of the field, and ends with `remedy`, what the user can do.
    """
    try:
        array = np.asarray(values)
    except (OverflowError, ValueError):  # rows of different lengths
        array = np.asarray(None)
    if array.shape != shape or array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise ValueError(f"{location}: expected finite numbers of shape {list(shape)}; {remedy}")
    return array
