"""One page of a cross-validation: pooled scores, every run, curves, confusions, trust, and limits."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import page, tables, text
from emofuse_jax.reporting.figures import classes, clip_figure, curves, score_figures
from emofuse_jax.reporting.figures import reliability as reliable
from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import apply_temperature, calibration_error, reliability_bins
from emofuse_jax.scoring.pooled_scores import average_over_seeds, describe_run_counts, join_predictions
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.utils.files import write_atomic

_FIGURE_PATTERN = re.compile(
    r"(learning_loss|learning_ua|confusion|recall|speakers|reliability|robustness_\w+|example_\d+)\.png"
)


def write_crossval_report(
    path: str | os.PathLike,
    *,
    results: dict,
    histories: Sequence[Sequence[dict]],
    robustness: dict,
    examples: Sequence[dict],
    command: str,
) -> None:
    """Writes the page to `path` and its pictures to ``figures/`` beside it, each to a temporary name first.

    Args:
      path: the HTML file; missing folders are made.
      results: of emofuse_jax/scoring/pooled_scores.py.
      histories: of each run its rows of epochs (training/crossval/replica_group.py).
      robustness: of emofuse_jax/scoring/robustness.py.
      examples: clips to show, as of `run_report.write_report`.
      command: that makes these numbers.
    """
    marks = corpus_marks(results["corpus"], results["leaks"])
    speaker_scores = pooled_speaker_scores(results)
    pictures = _make_pictures(results, histories, robustness, speaker_scores, marks)
    example_pictures = [
        clip_figure.example_picture(i, example, marks) for i, example in enumerate(examples, 1)
    ]
    pooled_scores = {modality_name(results): results["pooled"] | {"recall": class_recalls(results)}}
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
                reliable.MISSING_MODALITY_LABELS[row["at"]],
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


def _make_pictures(results, histories, robustness, speaker_scores, marks) -> dict[str, Picture]:
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


def modality_name(results: Mapping) -> str:
    """Which streams the network has, as the report names them."""
    return "both" if len(results["modalities"]) > 1 else results["modalities"][0]


def class_recalls(results: Mapping) -> list[float | None]:
    """Of every class, of all answers pooled."""
    return metrics.compute_scores(np.asarray(results["pooled"]["confusion"], float))["recall"]


def score_rows(results: Mapping) -> dict[str, dict]:
    """All answers pooled, the mean over the runs, and the answers averaged over several seeds."""
    rows = {"all answers pooled": results["pooled"]}
    rows |= {
        f"mean of {len(results['runs'])} runs": results["mean"],
        "their standard deviation": results["sd"],
    }
    if "ensemble" in results:
        rows["answers averaged over seeds"] = results["ensemble"]
    return rows


def fold_rows(results: Mapping) -> list[dict]:
    """UA of every fold, a cell for each seed."""
    ua_by_replica = {
        (run["fold"], run["seed"]): text.format_percent(run["test"]["ua"]) for run in results["runs"]
    }
    seeds = sorted({seed for _, seed in ua_by_replica})
    return [
        {"fold": fold, "cells": [ua_by_replica.get((fold, seed), text.DASH) for seed in seeds]}
        for fold in sorted({fold for fold, _ in ua_by_replica})
    ]


def pooled_speaker_scores(results: Mapping) -> dict[str, dict]:
    """UA, WA and clips of each speaker, over all seeds."""
    predicted, labels, speakers = join_predictions(results["runs"])
    speaker_names = sorted({name for run in results["runs"] for name in run["speakers"]})
    speaker_indices = np.unique(speakers[labels >= 0])
    seeds = len({run["seed"] for run in results["runs"]})
    scores_by_speaker = {}
    for speaker_index, matrix in zip(
        speaker_indices,
        metrics.speaker_confusion_matrices(predicted, labels, speakers, len(results["classes"])),
        strict=True,
    ):
        speaker_scores = metrics.compute_scores(matrix)
        clip_count = round(matrix.sum() / seeds)
        scores_by_speaker[speaker_names[speaker_index]] = {
            "ua": speaker_scores["ua"],
            "wa": speaker_scores["wa"],
            "clips": clip_count,
        }
    return scores_by_speaker


def calibration_curves(results: Mapping) -> tuple[dict[str, list[dict]], dict[str, float]]:
    """Reliability and calibration error, as the networks answer and after each one's temperature."""
    labels = np.concatenate([run["labels"] for run in results["runs"]]).astype(np.int64)
    uncalibrated: Float[np.ndarray, "n c"] = np.concatenate(
        [np.asarray(run["probabilities"]) for run in results["runs"]]
    )
    calibrated = np.concatenate(
        [apply_temperature(run["probabilities"], run["temperature"]) for run in results["runs"]]
    )
    probabilities = {"as answered": uncalibrated, "calibrated": calibrated}
    return (
        {name: reliability_bins(p, labels) for name, p in probabilities.items()},
        {name: calibration_error(p, labels) for name, p in probabilities.items()},
    )


def provenance_facts(results: Mapping) -> list[tuple[str, str]]:
    """Where the numbers come from, as label and value."""
    return [
        ("Config", results["config"]),
        ("Corpus", results["corpus"]),
        ("Protocol", results["protocol"]),
        *describe_run_counts(results["runs"]).items(),
        ("Date", results["date"]),
    ]
