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
from emofuse_jax.scoring.calibration import calibration_error, reliability, tempered
from emofuse_jax.scoring.pooled_scores import averaged, extent, joined_answers
from emofuse_jax.scoring.result_labels import corpus_marks

_OURS = re.compile(
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
      examples: clips to show, as of `report.write_report`.
      command: that makes these numbers.
    """
    marks = corpus_marks(results["corpus"], results["leaks"])
    speakers = speaker_rows(results)
    pictures = _pictures(results, histories, robustness, speakers, marks)
    shown = [clip_figure.example_picture(i, example, marks) for i, example in enumerate(examples, 1)]
    whole = {modality(results): results["pooled"] | {"recall": recalls(results)}}
    markup = page.render_html(
        "crossval.html",
        title=f"{results['config']} on {results['corpus']}, {results['protocol']}",
        marks=marks,
        facts=facts(results),
        versions=results["versions"],
        command=command,
        headline=tables.score_table(whole, text.MODALITY_NAMES),
        scores=tables.score_table(score_rows(results), {}),
        runs=run_rows(results),
        seeds=sorted({run["seed"] for run in results["runs"]}),
        recalls=tables.recall_rows(whole, results["classes"]),
        speakers=tables.speaker_rows(speakers),
        mistakes=tables.mistake_rows(averaged(results)),
        without=[
            (
                reliable.MISSING_MODALITY_LABELS[row["at"]],
                text.format_percent(row["ua"]),
                text.format_percent(row["wa"]),
            )
            for row in robustness.get("without", ())
        ],
        pictures=pictures,
        gallery=list(zip(examples, shown, strict=True)),
        chance=text.format_percent(1 / len(results["classes"])),
        held_out=all(run["validation"]["ua"] is not None for run in results["runs"]),
    )
    folder = pathlib.Path(path).parent
    page.write_figures(folder / "figures", [*pictures.values(), *shown], _OURS)
    page.write_atomically(pathlib.Path(path), markup.encode())


def _pictures(results, histories, robustness, speakers, marks) -> dict[str, Picture]:
    names, chance = results["classes"], 1 / len(results["classes"])
    drawn = [
        curves.mean_curve_picture(histories, "loss", marks),
        curves.mean_curve_picture(histories, "ua", marks, chance),
        classes.confusion_picture(np.asarray(results["pooled"]["confusion"]), names, marks),
        classes.recall_picture({modality(results): recalls(results)}, names, marks),
        score_figures.speaker_picture(speakers, chance, results["pooled"]["ua"], marks),
        reliable.reliability_picture(*trust(results), marks),
        *(
            reliable.robustness_picture(curve, rows, chance, marks)
            for curve, rows in robustness.items()
            if curve in reliable.AXIS_LABELS
        ),
    ]
    return {picture.name: picture for picture in drawn if picture is not None}


def modality(results: Mapping) -> str:
    """Which streams the network has, as the report names them."""
    return "both" if len(results["modalities"]) > 1 else results["modalities"][0]


def recalls(results: Mapping) -> list[float | None]:
    """Of every class, of all answers pooled."""
    return metrics.scores(np.asarray(results["pooled"]["confusion"], float))["recall"]


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


def run_rows(results: Mapping) -> list[dict]:
    """UA of every fold, a cell for each seed."""
    found = {(run["fold"], run["seed"]): text.format_percent(run["test"]["ua"]) for run in results["runs"]}
    seeds = sorted({seed for _, seed in found})
    return [
        {"fold": fold, "cells": [found.get((fold, seed), text.DASH) for seed in seeds]}
        for fold in sorted({fold for fold, _ in found})
    ]


def speaker_rows(results: Mapping) -> dict[str, dict]:
    """UA, WA and clips of each speaker, over all seeds."""
    guess, labels, speakers = joined_answers(results["runs"])
    names = sorted({name for run in results["runs"] for name in run["speakers"]})
    numbers = np.unique(speakers[labels >= 0])
    seeds = len({run["seed"] for run in results["runs"]})
    found = {}
    for number, matrix in zip(
        numbers, metrics.speaker_confusions(guess, labels, speakers, len(results["classes"])), strict=True
    ):
        values = metrics.scores(matrix)
        clips = round(matrix.sum() / seeds)
        found[names[number]] = {"ua": values["ua"], "wa": values["wa"], "clips": clips}
    return found


def trust(results: Mapping) -> tuple[dict[str, list[dict]], dict[str, float]]:
    """Reliability and calibration error, as the networks answer and after each one's temperature."""
    labels = np.concatenate([run["labels"] for run in results["runs"]]).astype(np.int64)
    raw: Float[np.ndarray, "n c"] = np.concatenate(
        [np.asarray(run["probabilities"]) for run in results["runs"]]
    )
    after = np.concatenate([tempered(run["probabilities"], run["temperature"]) for run in results["runs"]])
    answers = {"as answered": raw, "calibrated": after}
    return (
        {name: reliability(p, labels) for name, p in answers.items()},
        {name: calibration_error(p, labels) for name, p in answers.items()},
    )


def facts(results: Mapping) -> list[tuple[str, str]]:
    """Where the numbers come from, as label and value."""
    return [
        ("Config", results["config"]),
        ("Corpus", results["corpus"]),
        ("Protocol", results["protocol"]),
        *extent(results["runs"]).items(),
        ("Date", results["date"]),
    ]
