"""Combines the results of all folds and seeds of a protocol, pooled and per run."""

import datetime
import os
import statistics
from collections.abc import Callable, Iterable, Sequence

import ml_collections
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import apply_temperature
from emofuse_jax.scoring.result_checks import check_crossval_results
from emofuse_jax.scoring.result_marks import corpus_marks
from emofuse_jax.scoring.result_types import (
    INTERVAL_FIELDS,
    SUMMARY_METRICS,
    ClipPredictions,
    CrossvalFile,
    PooledPredictions,
    ReplicaResult,
    ScoreFields,
)
from emofuse_jax.utils.files import read_json_object
from emofuse_jax.utils.versions import package_versions


def make_crossval_results(
    runs: list[ReplicaResult],
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    protocol: str,
    leaks: list[str],
) -> CrossvalFile:
    """Returns the contents of the `results.json` of a cross-validation.

    The pooled scores and the means over runs differ, because a mean over folds weights folds equally, not
    clips.

    Args:
      runs: contents of `result.json` of each run (one fold and seed): `fold`, `seed`, `test` (scores),
        `temperature`, and the lists `clips`, `speakers`, `labels` and `probabilities` of its test clips.
      config: config of any of the runs.
      dataset: dataset of all runs, as `open_dataset` returns it.
      protocol: name of the protocol.
      leaks: descriptions of the leaks in the splits of the runs.

    Returns:
      A dict for JSON: `protocol`, `config` (its name), `corpus`, `dataset` (its path), `date` (YYYY-MM-DD),
      `classes`, `modalities` (of the fusion), `runs`, `pooled`, `mean`, `sd`, `leaky` (True if there are
      leaks), `leaks` and `versions` (package versions by name). `pooled` has the scores of the predictions of
      all runs together: `ua`, `wa` and `wf1` (fractions), `ua_interval`, `wa_interval` and `wf1_interval`
      (`[low, high]`, 95 %) and `confusion`. `mean` and `sd` have the mean and the standard deviation of `ua`,
      `wa` and `wf1` over the runs. With several seeds also `ensemble`, like `pooled`, but after averaging the
      predictions of the seeds, so of several models, not of one.

    Raises:
      ValueError: if there are no runs, a run has no clips or more or fewer `probabilities` than `labels`
        (with several seeds also `clips`), no clip has a label, or an installed package provides the fusion
        but it cannot be imported or used.
      IndexError: if a run has more or fewer `speakers` than `labels`, or a label is not the index of a class.
      KeyError: if a run lacks a field, or there is no fusion of the name in `config`.
    """
    classes = list(dataset.classes)
    results: CrossvalFile = {
        "protocol": protocol,
        "config": config.name,
        "corpus": dataset.prep["corpus"],
        "dataset": dataset.path,
        "date": datetime.date.today().isoformat(),
        "classes": classes,
        "modalities": list(FUSIONS[config.model.fusion.name].modalities),
        "runs": runs,
        "pooled": score_pooled_runs(runs, len(classes)),
        "mean": summarise_runs(runs, statistics.mean),
        "sd": summarise_runs(runs, lambda scores: statistics.stdev(scores) if len(scores) > 1 else 0.0),
        "leaky": bool(leaks),
        "leaks": leaks,
        "versions": package_versions(),
    }
    if len({run["seed"] for run in runs}) > 1:
        results["ensemble"] = score_pooled_runs([average_over_seeds(results)], len(classes))
    return results


def summarise_runs(runs: Iterable[ReplicaResult], statistic: Callable[[list[float]], float]) -> ScoreFields:
    """Applies a statistic, such as the mean, to the test scores of runs.

    Returns:
      `{"ua": ..., "wa": ..., "wf1": ...}`, each one the statistic of this score (a fraction) over the runs.

    Raises:
      StatisticsError: if there are no runs and `statistic` raises it, as `statistics.mean` does (a
        ValueError).
    """
    test_scores = [run["test"] for run in runs]
    return {
        "ua": statistic([scores["ua"] for scores in test_scores]),
        "wa": statistic([scores["wa"] for scores in test_scores]),
        "wf1": statistic([scores["wf1"] for scores in test_scores]),
    }


def average_over_seeds(results: CrossvalFile) -> PooledPredictions:
    """Averages the calibrated probabilities of each clip over the seeds.

    They are calibrated with the temperature of their run.

    Returns:
      A dict: `classes` (their names), and parallel lists with one entry per clip, in the order in which the
      clips first occur in the runs: `clips` (the clip_ids), `speakers` (names), `labels` (class indices, -1
      without a label) and `probabilities` (one per class, their sum is 1). The lists are empty without runs.

    Raises:
      ValueError: if the lists `clips`, `speakers`, `labels` and `probabilities` of a run differ in length, or
        a run has no clips.
    """
    probability_sums: dict[str, np.ndarray] = {}
    speaker_and_label: dict[str, tuple[str, int]] = {}
    for run in results["runs"]:
        calibrated = apply_temperature(np.asarray(run["probabilities"]), run["temperature"])
        for clip, speaker, label, probabilities in zip(
            run["clips"], run["speakers"], run["labels"], calibrated, strict=True
        ):
            probability_sums[clip] = probability_sums.get(clip, 0.0) + probabilities
            speaker_and_label[clip] = (speaker, label)
    return {
        "classes": results["classes"],
        "clips": list(probability_sums),
        "speakers": [speaker for speaker, _ in speaker_and_label.values()],
        "labels": [label for _, label in speaker_and_label.values()],
        "probabilities": [
            (probabilities / probabilities.sum()).tolist() for probabilities in probability_sums.values()
        ],
    }


def format_markdown_row(results: CrossvalFile) -> str:
    """Formats results for a paper: a Markdown table of a header and one row.

    The columns are system, protocol, folds x seeds, speakers, the pooled UA, WA and WF1, and the mean and
    standard deviation of the UA over the runs. Scores are in per cent, the pooled ones with 95 % intervals
    over speakers: `71.3 [65.0, 77.0]`. Warnings such as LEAKY follow the name of the config in the first
    column. The text ends with a line break.

    `results` is the complete content of a cross-validation's results.json. Raises KeyError if a field is
    missing, and ValueError if an interval does not have two bounds.
    """
    pooled_scores, run_counts = results["pooled"], describe_run_counts(results["runs"])
    cells = {
        "system": " ".join([results["config"], *corpus_marks(results["corpus"], results["leaks"])]),
        "protocol": results["protocol"],
        "folds x seeds": run_counts["Folds x seeds"],
        "speakers": run_counts["Test speakers"],
    }
    for name in SUMMARY_METRICS:
        low, high = (100 * x for x in pooled_scores[INTERVAL_FIELDS[name]])
        cells[f"{name.upper()}, pooled"] = f"{100 * pooled_scores[name]:.1f} [{low:.1f}, {high:.1f}]"
    cells["UA, mean +- sd of runs"] = f"{100 * results['mean']['ua']:.1f} +- {100 * results['sd']['ua']:.1f}"
    lines = [list(cells), ["---"] * len(cells), list(cells.values())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def describe_run_counts(runs: Sequence[ReplicaResult]) -> dict[str, str]:
    """Returns counts over all runs as text: the keys are `Folds x seeds`, `Test speakers` and `Test clips`.

    Each speaker and each clip counts once. An example is `{"Folds x seeds": "5 x 2", "Test speakers": "10",
    "Test clips": "4490"}`.
    """
    folds, seeds = {run["fold"] for run in runs}, {run["seed"] for run in runs}
    return {
        "Folds x seeds": f"{len(folds)} x {len(seeds)}",
        "Test speakers": str(len({speaker for run in runs for speaker in run["speakers"]})),
        "Test clips": str(len({clip for run in runs for clip in run["clips"]})),
    }


def score_pooled_runs(runs: Sequence[ClipPredictions], num_classes: int) -> ScoreFields:
    """Computes the scores of the predictions of all runs together.

    Args:
      runs: for each run, parallel lists with one entry per clip: `speakers` (names), `labels` (class indices,
        -1 without a label) and `probabilities` (one per class).
      num_classes: number of classes.

    Returns:
      A dict: `ua` (mean recall), `wa` (accuracy) and `wf1` (F1 weighted by class size) as fractions; their
      95 % intervals `ua_interval`, `wa_interval` and `wf1_interval` as `[low, high]` (speakers are resampled;
      [0, 1] with one speaker); and `confusion`, the numbers of clips as nested lists of ints, rows true
      classes, columns predicted classes.

    Raises:
      ValueError: if there are no runs, a run has no clips, `labels` and `probabilities` differ in length, or
        no clip has a label.
      IndexError: if `speakers` and `labels` differ in length, or a label is not below `num_classes`.
    """
    predicted, labels, speakers = join_predictions(runs)
    weight = (labels >= 0).astype(np.float32)
    matrix = np.asarray(metrics.confusion_matrix(predicted, labels, weight, num_classes))
    scores = metrics.compute_scores(matrix)
    intervals = metrics.speaker_intervals(predicted, labels, speakers, num_classes, seed=0)
    pooled_scores: ScoreFields = {"ua": scores["ua"], "wa": scores["wa"], "wf1": scores["wf1"]}
    for name in SUMMARY_METRICS:
        pooled_scores[INTERVAL_FIELDS[name]] = list(intervals[name])
    pooled_scores["confusion"] = matrix.astype(int).tolist()
    return pooled_scores


def join_predictions(
    runs: Sequence[ClipPredictions],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Concatenates the predictions of runs.

    Returns:
      Three arrays of integers with one entry per clip and run: predicted classes (those with the largest
      probability), labels (-1 without a label), and speaker indices. A speaker index is the position in the
      sorted names of the speakers of all runs.

    Raises:
      ValueError: if there are no runs, or a run has no clips.
    """
    labels = np.concatenate([run["labels"] for run in runs]).astype(np.int64)
    predicted = np.concatenate([np.argmax(run["probabilities"], -1) for run in runs])
    speaker_names = sorted({speaker for run in runs for speaker in run["speakers"]})
    return (
        predicted,
        labels,
        np.concatenate([np.searchsorted(speaker_names, run["speakers"]) for run in runs]),
    )


def read_crossval_results(path: str | os.PathLike[str]) -> CrossvalFile:
    """Reads a `results.json` that `emofuse crossval` wrote.

    Returns:
      The contents of the file as a dict: `classes`, `protocol`, `runs` (at least one dict per fold and seed
      with its test clips, their predictions and its scores), `corpus`, `leaks` and `pooled` (scores of all
      predictions). A complete file also has `config` (its name), `dataset` (its path), `date`, `modalities`,
      `mean` and `sd` (of the scores of the runs), `leaky`, `versions` and, with several seeds, `ensemble`
      (scores after averaging the seeds); these are not checked.

    Raises:
      ValueError: if the file is not a JSON object, or one of the first six fields is missing or invalid;
        names the file and the field.
      OSError: if the file cannot be read.
    """
    return check_crossval_results(os.fspath(path), read_json_object(os.fspath(path)))
