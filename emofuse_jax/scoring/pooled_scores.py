"""The results of all folds and seeds of a protocol as one: pooled, and run by run."""

import datetime
import statistics

import ml_collections
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import apply_temperature
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.utils.files import load_json
from emofuse_jax.utils.versions import package_versions

SUMMARY_METRICS = ("ua", "wa", "wf1")


def make_crossval_results(
    runs: list[dict],
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    protocol: str,
    leaks: list[str],
) -> dict:
    """Returns the result file of a cross-validation.

    `pooled` are scores of all predictions together, with 95 % intervals that draw speakers; `mean`
    and `sd` are over the runs, each scored alone. The two differ: a mean over folds weighs folds, not clips.
    `ensemble`, with several seeds, scores their predictions averaged: more models than one, so not a score of
    one.

    Args:
      runs: `result.json` of each (training/crossval/crossval.py).
      config: of any of the runs.
      dataset: that all runs share.
      protocol: name of the protocol.
      leaks: what the splits of the runs leak.
    """
    classes = list(dataset.classes)
    run_scores = {name: [run["test"][name] for run in runs] for name in SUMMARY_METRICS}
    results = {
        "protocol": protocol,
        "config": config.name,
        "corpus": dataset.prep["corpus"],
        "dataset": dataset.path,
        "date": datetime.date.today().isoformat(),
        "classes": classes,
        "modalities": list(FUSIONS[config.model.fusion.name].modalities),
        "runs": runs,
        "pooled": score_pooled_runs(runs, len(classes)),
        "mean": {name: statistics.mean(scores) for name, scores in run_scores.items()},
        "sd": {
            name: statistics.stdev(scores) if len(scores) > 1 else 0.0 for name, scores in run_scores.items()
        },
        "leaky": bool(leaks),
        "leaks": leaks,
        "versions": package_versions(),
    }
    if len({run["seed"] for run in runs}) > 1:
        results["ensemble"] = score_pooled_runs([average_over_seeds(results)], len(classes))
    return results


def average_over_seeds(results: dict) -> dict:
    """Every clip once: the mean over the seeds of its probabilities, calibrated as each model was."""
    probability_sums: dict[str, np.ndarray] = {}
    speaker_and_label: dict[str, tuple] = {}
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


def format_markdown_row(results: dict) -> str:
    """A header and a row for a paper, in Markdown: percent, intervals of 95 % by speaker, what to warn of."""
    pooled_scores, run_counts = results["pooled"], describe_run_counts(results["runs"])
    cells = {
        "system": " ".join([results["config"], *corpus_marks(results["corpus"], results["leaks"])]),
        "protocol": results["protocol"],
        "folds x seeds": run_counts["Folds x seeds"],
        "speakers": run_counts["Test speakers"],
    }
    for name in SUMMARY_METRICS:
        low, high = (100 * x for x in pooled_scores[f"{name}_interval"])
        cells[f"{name.upper()}, pooled"] = f"{100 * pooled_scores[name]:.1f} [{low:.1f}, {high:.1f}]"
    cells["UA, mean +- sd of runs"] = f"{100 * results['mean']['ua']:.1f} +- {100 * results['sd']['ua']:.1f}"
    lines = [cells, ["---"] * len(cells), cells.values()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def describe_run_counts(runs: list[dict]) -> dict[str, str]:
    """What the runs span, in words."""
    folds, seeds = ({run[name] for run in runs} for name in ("fold", "seed"))
    speakers, clips = ({entry for run in runs for entry in run[name]} for name in ("speakers", "clips"))
    return {
        "Folds x seeds": f"{len(folds)} x {len(seeds)}",
        "Test speakers": str(len(speakers)),
        "Test clips": str(len(clips)),
    }


def score_pooled_runs(runs: list[dict], num_classes: int) -> dict:
    """Scores of all answers of all runs together, and intervals that draw whole speakers."""
    predicted, labels, speakers = join_predictions(runs)
    weight = (labels >= 0).astype(np.float32)
    matrix = np.asarray(metrics.confusion_matrix(predicted, labels, weight, num_classes))
    scores = metrics.compute_scores(matrix)
    intervals = metrics.speaker_intervals(predicted, labels, speakers, num_classes, seed=0)
    pooled_scores = {name: scores[name] for name in SUMMARY_METRICS}
    pooled_scores |= {f"{name}_interval": [float(x) for x in intervals[name]] for name in SUMMARY_METRICS}
    return pooled_scores | {"confusion": matrix.astype(int).tolist()}


def join_predictions(
    runs: list[dict],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Answers, labels and speakers' numbers, in the order of their names, of all runs one after the other."""
    labels = np.concatenate([run["labels"] for run in runs]).astype(np.int64)
    predicted = np.concatenate([np.argmax(run["probabilities"], -1) for run in runs])
    speaker_names = sorted({speaker for run in runs for speaker in run["speakers"]})
    return (
        predicted,
        labels,
        np.concatenate([np.searchsorted(speaker_names, run["speakers"]) for run in runs]),
    )


def read_crossval_results(path: str) -> dict:
    """A results.json of emofuse crossval; ValueError on another file."""
    results = load_json(path)
    missing = [field for field in ("classes", "protocol", "runs", "corpus", "leaks") if field not in results]
    if missing:
        raise ValueError(f"{path}: field {missing[0]} is missing; expected results.json of emofuse crossval")
    return results
