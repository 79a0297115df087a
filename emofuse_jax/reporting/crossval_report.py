"""Writes the report of a cross-validation: scores of all runs, learning curves, confusions, calibration."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import page, tables, text
from emofuse_jax.reporting.figures import classes, clip_figure, curves, reliability as reliable, score_figures
from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import apply_temperature, calibration_error, reliability_bins
from emofuse_jax.scoring.pooled_scores import average_over_seeds, describe_run_counts, join_predictions
from emofuse_jax.scoring.result_marks import corpus_marks
from emofuse_jax.scoring.result_types import (
    CrossvalFile,
    EpochRow,
    ReliabilityBin,
    RobustnessCurves,
    ScoreFields,
    SpeakerScores,
)
from emofuse_jax.utils.files import write_atomic

_FIGURE_PATTERN = re.compile(
    r"(learning_loss|learning_ua|confusion|recall|speakers|reliability|robustness_\w+|example_\d+)\.png"
)


def write_crossval_report(
    path: str | os.PathLike[str],
    *,
    results: CrossvalFile,
    histories: Sequence[Sequence[EpochRow]],
    robustness: RobustnessCurves,
    examples: Sequence[GalleryClip],
    command: str,
) -> None:
    """Writes the page to `path` and its pictures to the folder `figures/` next to it.

    Existing files are replaced. Each file is written under a temporary name first, so that an interrupted
    call leaves no incomplete file. Figures of an earlier report that this one does not have are deleted.

    Args:
      path: the HTML file; missing folders are created.
      results: content of the cross-validation's results.json; all its fields are needed except `dataset`,
        `leaky` and `ensemble`.
      histories: for each run, one dict per epoch: `epoch`, and if known `train_loss`, `validation_loss`,
        `train_ua` and `validation_ua` (mean recalls as fractions).
      robustness: maps each measured curve, `snr`, `lost` or `without`, to its points, dicts with `at` and the
        fractions `ua` (mean recall) and `wa` (accuracy). `at` is the signal-to-noise ratio in dB (None: no
        noise added), the fraction of masked faces, or the missing modality, `audio` or `video`.
      examples: a dict for each clip to show: `clip_id`, `label`, `prediction`, and `probabilities` by class;
        with a `spectrogram` [t f] also `seconds`, and `max_hz` or `bin_hz`; with `faces` uint8 [s h w 3] also
        `face_mask` bool [s]. The page also shows `audio_attention`, `video_attention`, `face_time` [s],
        `voice_weight` and `face_weight` if they are present.
      command: the command line that produced the results; printed on the page.

    Raises:
      ValueError: if no test clip has a label, if a run has no clips, more or fewer `clips` than `labels`, or
        another number of classes, if the confusion matrix does not have one row and column for each class, if
        the number of faces of an example is not a multiple of the length of its `video_attention`, if an
        interval does not have two bounds, or if Matplotlib is not installed.
      IndexError: if a run has more or fewer `labels` than `speakers` or `probabilities`, if a label is not
        the index of a class, or if `face_mask` or `face_time` has fewer entries than there are faces.
      KeyError: if a field that is needed is missing.
      jinja2.UndefinedError: if `histories` has UA but no loss.
      OSError: if a file cannot be written or deleted.
    """
    marks = corpus_marks(results["corpus"], results["leaks"])
    speaker_scores = pooled_speaker_scores(results)
    pictures = _make_pictures(results, histories, robustness, speaker_scores, marks)
    example_pictures = [
        clip_figure.example_picture(i, example, marks) for i, example in enumerate(examples, 1)
    ]
    pooled: ScoreFields = {**results["pooled"], "recall": class_recalls(results)}
    pooled_scores = {modality_name(results): pooled}
    html = page.render_html(
        "crossval.html",
        title=f"{results['config']} on {results['corpus']}, {results['protocol']}",
        marks=marks,
        facts=provenance_facts(results),
        versions=results["versions"],
        command=command,
        headline=tables.score_table(pooled_scores, text.MODALITY_NAMES),
        scores=tables.score_table(score_rows(results), {}),
        runs=fold_rows(results),
        seeds=sorted({run["seed"] for run in results["runs"]}),
        recalls=tables.recall_rows(pooled_scores, results["classes"]),
        speakers=tables.speaker_rows(speaker_scores),
        mistakes=tables.mistake_rows(average_over_seeds(results)),
        without=[
            (
                reliable.MISSING_MODALITY_LABELS[str(row["at"])],
                text.format_percent(row["ua"]),
                text.format_percent(row["wa"]),
            )
            for row in robustness.get("without", ())
        ],
        pictures=pictures,
        gallery=list(zip(examples, example_pictures, strict=True)),
        chance=text.format_percent(1 / len(results["classes"])),
        held_out=all(run["validation"]["ua"] is not None for run in results["runs"]),
    )
    folder = pathlib.Path(path).parent
    page.write_figures(folder / "figures", [*pictures.values(), *example_pictures], _FIGURE_PATTERN)
    write_atomic(pathlib.Path(path), html.encode())


def _make_pictures(
    results: CrossvalFile,
    histories: Sequence[Sequence[EpochRow]],
    robustness: RobustnessCurves,
    speaker_scores: Mapping[str, SpeakerScores],
    marks: Sequence[str],
) -> dict[str, Picture]:
    class_names, chance = results["classes"], 1 / len(results["classes"])
    pictures = [
        curves.mean_curve_picture(histories, "loss", marks),
        curves.mean_curve_picture(histories, "ua", marks, chance),
        classes.confusion_picture(np.asarray(results["pooled"]["confusion"]), class_names, marks),
        classes.recall_picture({modality_name(results): class_recalls(results)}, class_names, marks),
        score_figures.speaker_picture(speaker_scores, chance, results["pooled"]["ua"], marks),
        reliable.reliability_picture(*calibration_curves(results), marks),
        *(
            reliable.robustness_picture(curve, rows, chance, marks)
            for curve, rows in robustness.items()
            if curve in reliable.AXIS_LABELS
        ),
    ]
    return {picture.name: picture for picture in pictures if picture is not None}


def modality_name(results: CrossvalFile) -> str:
    """Returns `both` if the network reads two modalities, otherwise the only one, `audio` or `video`."""
    return "both" if len(results["modalities"]) > 1 else results["modalities"][0]


def class_recalls(results: CrossvalFile) -> list[float | None]:
    """Returns the recall of each class over the pooled predictions, a fraction; None for an absent class.

    Classes are in the order of the labels. A class is absent if no clip has its label. Raises ValueError if
    all counts of the matrix are 0.
    """
    return metrics.compute_scores(np.asarray(results["pooled"]["confusion"], float))["recall"]


def score_rows(results: CrossvalFile) -> dict[str, ScoreFields]:
    """Returns the scores in each row of the main table, by the name of the row.

    The rows are `pooled predictions`, `mean of <number> runs`, `standard deviation over the runs` and, if
    there are several seeds, `predictions averaged over seeds`. Each has `ua`, `wa` and `wf1` as fractions;
    the first and the last also have the intervals (`ua_interval`, ...) and the confusion matrix.
    """
    rows = {"pooled predictions": results["pooled"]}
    rows |= {
        f"mean of {len(results['runs'])} runs": results["mean"],
        "standard deviation over the runs": results["sd"],
    }
    if "ensemble" in results:
        rows["predictions averaged over seeds"] = results["ensemble"]
    return rows


class FoldRow(TypedDict):
    """Test UA of one fold: `fold`, its number, and `cells`, one text per seed."""

    fold: int
    cells: list[str]
    """UA of each seed in per cent."""


def fold_rows(results: CrossvalFile) -> list[FoldRow]:
    """Returns a row for each fold, in ascending order, with the test UA of each seed.

    A row is a dict: `fold`, the number of the fold, and `cells`, a list with the UA in per cent as text for
    each seed in ascending order, or a dash if the fold was not run with that seed.
    """
    ua_by_replica = {
        (run["fold"], run["seed"]): text.format_percent(run["test"]["ua"]) for run in results["runs"]
    }
    seeds = sorted({seed for _, seed in ua_by_replica})
    return [
        {"fold": fold, "cells": [ua_by_replica.get((fold, seed), text.DASH) for seed in seeds]}
        for fold in sorted({fold for fold, _ in ua_by_replica})
    ]


def pooled_speaker_scores(results: CrossvalFile) -> dict[str, SpeakerScores]:
    """Returns the scores of each speaker over all runs, by name, sorted by name.

    Each value is a dict: `ua` (mean recall) and `wa` (accuracy) as fractions, over the predictions of all
    seeds, and `clips`, the number of labelled clips, averaged over the seeds and rounded. Speakers without a
    labelled clip are left out.

    Raises:
      ValueError: if there are no runs, a run has no clips, or no clip has a label.
      IndexError: if a label is not the index of a class, or a run has more or fewer `labels` than `speakers`
        or `probabilities`.
    """
    predicted, labels, speakers = join_predictions(results["runs"])
    speaker_names = sorted({name for run in results["runs"] for name in run["speakers"]})
    speaker_indices = np.unique(speakers[labels >= 0])
    seeds = len({run["seed"] for run in results["runs"]})
    scores_by_speaker: dict[str, SpeakerScores] = {}
    for speaker_index, matrix in zip(
        speaker_indices,
        metrics.speaker_confusion_matrices(predicted, labels, speakers, len(results["classes"])),
        strict=True,
    ):
        speaker_scores = metrics.compute_scores(matrix)
        clip_count = round(float(matrix.sum()) / seeds)
        scores_by_speaker[speaker_names[speaker_index]] = {
            "ua": speaker_scores["ua"],
            "wa": speaker_scores["wa"],
            "clips": clip_count,
        }
    return scores_by_speaker


def calibration_curves(results: CrossvalFile) -> tuple[dict[str, list[ReliabilityBin]], dict[str, float]]:
    """Computes reliability curves and calibration errors, before and after temperature scaling.

    The probabilities of each run are calibrated with the temperature of that run. Clips without a label are
    left out.

    Returns:
      `(curves, errors)`, two dicts with the keys `uncalibrated` and `calibrated`. `curves` has a list of
      dicts, one per bin of confidence that has clips, of 15 equal bins in ascending order: `confidence`
      (mean, 0 to 1), `accuracy` (fraction) and `clips` (their number). `errors` has the expected calibration
      error as a fraction.

    Raises:
      ValueError: if there are no runs, a run has no clips, or the numbers of classes differ between runs.
      IndexError: if the numbers of `labels` and `probabilities` differ.
      ZeroDivisionError: if no clip has a label.
    """
    labels = np.concatenate([run["labels"] for run in results["runs"]]).astype(np.int64)
    uncalibrated: Float[np.ndarray, "n c"] = np.concatenate(
        [np.asarray(run["probabilities"]) for run in results["runs"]]
    )
    calibrated = np.concatenate(
        [apply_temperature(np.asarray(run["probabilities"]), run["temperature"]) for run in results["runs"]]
    )
    probabilities = {"uncalibrated": uncalibrated, "calibrated": calibrated}
    return (
        {name: reliability_bins(p, labels) for name, p in probabilities.items()},
        {name: calibration_error(p, labels) for name, p in probabilities.items()},
    )


def provenance_facts(results: CrossvalFile) -> list[tuple[str, str]]:
    """Returns pairs of label and text for the head of the page.

    The labels are Config, Corpus, Protocol, Folds x seeds, Test speakers, Test clips and Date, in this order.
    """
    return [
        ("Config", results["config"]),
        ("Corpus", results["corpus"]),
        ("Protocol", results["protocol"]),
        *describe_run_counts(results["runs"]).items(),
        ("Date", results["date"]),
    ]
