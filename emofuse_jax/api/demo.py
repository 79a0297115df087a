"""The steps of the demo, each resumable, each the same function as its own command."""

import os
import time
from typing import NotRequired, TypedDict

from data_prep.corpora import demo as corpus, read_corpus
from data_prep.prepare import prepare
from data_prep.settings import RECIPES
from data_prep.synth.clip import render_clip
from emofuse_jax import serving, settings
from emofuse_jax.api import evaluation
from emofuse_jax.api.export import export_bundle
from emofuse_jax.api.run import REPORT_FILE
from emofuse_jax.api.training import train
from emofuse_jax.reporting import run_report, terminal
from emofuse_jax.reporting.figures.score_figures import NetworkComparison
from emofuse_jax.scoring.result_types import ScoreFields
from emofuse_jax.serving.predictions import FailedWindow
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.utils.config_dict import ConfigDict
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.progress_bar import progress_bar

NETWORKS = {"voice": "audio_only", "face": "video_only", "both": "am_fbp"}
PROTOCOL = "demo_1fold"


class DemoSummary(TypedDict):
    """Contents of the results.json of the demo: scores of the three networks, and the best possible ones."""

    voice: ScoreFields
    face: ScoreFields
    both: ScoreFields
    ceilings: dict[str, float]
    """Best possible accuracy with each input, and that of adding the evidence of both (`additive`)."""
    seconds: NotRequired[float]
    """Duration of the demo."""


def run_demo(
    output: str, *, seed: int, clips_per_speaker: int, epochs: int | None, workers: int | None
) -> DemoSummary:
    """Runs the complete demo in `output`; prints a table, the path of the report and one prediction.

    The corpus and its records are created once. Networks, report, bundle and results.json of another seed
    than 0 are stored in `seed_<n>`. A second call continues where the first one stopped; report, bundle,
    scores and `new_clip.mp4` are replaced.

    Args:
      output: directory for corpus, records, networks, report and bundle.
      seed: seed of the training.
      clips_per_speaker: number of clips of each speaker, 1 to 1000.
      epochs: number of epochs; None or 0: as the configs say.
      workers: number of processes; None: one per core.

    Returns:
      The contents of results.json, a dict. `voice`, `face` and `both` are the scores of the networks: `ua`
      (mean recall of the classes), `wa` (accuracy), `wf1` (F1 weighted by class size), and their 95 %
      intervals `[low, high]` as `ua_interval`, `wa_interval` and `wf1_interval`. `ceilings` has the best
      possible accuracies with the `voice`, the `face`, the sum of the scores of both (`additive`), and
      `both`. All are fractions of 1. `seconds` is the duration.

    Raises:
      Preempted: after SIGTERM during training, once the state is saved.
      ValueError: `clips_per_speaker` is out of range, `output` holds a demo with other parameters or is used
        by another process, files in it are damaged, matplotlib is not installed, the loss is NaN or infinite,
        or the network cannot be exported or does not predict the new clip.
      OSError: a file cannot be read or written.
      ModuleNotFoundError: a package of the extra `prep` is missing.
      av.FFmpegError: FFmpeg can't encode H.264 or AAC.
      TypeError, AttributeError, KeyError: metadata of a saved checkpoint, or prep.json, are damaged.
      jax.errors.JaxRuntimeError: a device fails.
    """
    start_time = time.monotonic()
    clips_directory, records_directory = os.path.join(output, "clips"), os.path.join(output, "records")
    run_directory = os.path.join(output, f"seed_{seed}") if seed else output
    print_step(1, "corpus: drawn faces and synthesised voices, as real media files")
    with progress_bar("clips") as progress:
        corpus.write_corpus(
            clips_directory, clips_per_speaker=clips_per_speaker, workers=workers, progress=progress
        )
    print_step(2, "records: decode, find faces, write shards")
    with progress_bar("records") as progress:
        prepared = prepare(
            read_corpus("demo", clips_directory),
            RECIPES["fbp"],
            records_directory,
            workers=workers,
            progress=progress,
        )
    if prepared.problems:
        raise ValueError(
            f"{records_directory}: damaged records: {prepared.problems[0]}; remove this directory and run the"
            " demo again"
        )
    for step_number, (name, fusion) in enumerate(NETWORKS.items(), 3):
        print_step(step_number, f"training: {name} ({fusion})")
        train(
            open_experiment(make_network_config(records_directory, fusion, seed, epochs)),
            os.path.join(run_directory, name),
        )
    print_step(6, "scores and report")
    summary = score_networks(run_directory, clips_directory)
    print_step(7, "bundle, and a prediction on a clip of somebody new")
    predict_new_clip(run_directory)
    summary["seconds"] = round(time.monotonic() - start_time, 1)
    write_json(os.path.join(run_directory, "results.json"), summary)
    print(f"done in {summary['seconds']:.0f} s; results: {os.path.join(run_directory, 'results.json')}")
    return summary


def print_step(step_number: int, description: str) -> None:
    """Prints `[<step_number>/7] <description>`."""
    print(f"[{step_number}/7] {description}", flush=True)


def make_network_config(records_directory: str, fusion: str, seed: int, epochs: int | None) -> ConfigDict:
    """Returns the small config of a fusion for the records of the demo, with its protocol `demo_1fold`.

    With `epochs` None or 0, the number of epochs is that of the config. Raises LookupError if there is no
    such fusion, ValueError if an installed package provides it, but it can't be imported.
    """
    config = settings.small(fusion)
    config.seed, config.data.path, config.data.protocol = seed, records_directory, PROTOCOL
    config.train.epochs = epochs or config.train.epochs
    return config


def score_networks(run_directory: str, clips_directory: str) -> DemoSummary:
    """Scores the three networks on the test speakers, writes their results and a report, and prints a table.

    Writes `results.json`, `MODEL_CARD.md` and `DATA_CARD.md` to `evaluation/test` in the directory of each
    network, and `report.html` of the network `both`, with its pictures in `figures/`, to `run_directory`.
    Existing files are replaced.

    Args:
      run_directory: holds one directory per network: `voice`, `face` and `both`.
      clips_directory: directory of the corpus.

    Returns:
      A dict. `voice`, `face` and `both` are the scores of the networks: `ua` (mean recall of the classes),
      `wa` (accuracy), `wf1` (F1 weighted by class size), and their 95 % intervals `[low, high]` as
      `ua_interval`, `wa_interval` and `wf1_interval`. `ceilings` has the best possible accuracies with the
      `voice`, the `face`, the sum of the scores of both (`additive`), and `both`. All are fractions of 1.

    Raises:
      FileNotFoundError: a checkpoint, the records or the corpus is missing.
      ValueError: a checkpoint, the records, metrics.jsonl or demo.csv is damaged, the records differ from
        those of the training, there are no test clips or none has a label, or matplotlib is not installed.
      OSError: a file cannot be read or written.
      TypeError: a note in prep.json is not a text.
    """
    evaluations = {name: evaluation.evaluate_workdir(os.path.join(run_directory, name)) for name in NETWORKS}
    for name, (results, _) in evaluations.items():
        evaluation.write_results(os.path.join(run_directory, name), results)
    main_scores = {
        name: next(iter(results["modalities"].values())) for name, (results, _) in evaluations.items()
    }
    results, examples = evaluations["both"]
    test_clip_ids = set(results["clips"])
    ceilings = corpus.accuracy_ceilings(
        clip for clip in corpus.read_demo_clips(clips_directory) if clip.clip_id in test_clip_ids
    )
    networks = {name: summarise_scores(main_scores[name]) for name in NETWORKS}
    summary: DemoSummary = {
        "voice": networks["voice"],
        "face": networks["face"],
        "both": networks["both"],
        "ceilings": ceilings,
    }
    report_path = os.path.join(run_directory, REPORT_FILE)
    run_report.write_report(
        report_path,
        results=results,
        history=read_epoch_rows(os.path.join(run_directory, "both")),
        examples=examples,
        title="emofuse demo: AM-FBP",
        comparison=NetworkComparison(networks, ceilings),
        marks=evaluation.result_marks(results),
    )
    terminal.print_scores(main_scores, "test speakers, 95 % intervals by speaker")
    ceilings_text = ", ".join(f"{name} {100 * value:.1f}" for name, value in ceilings.items())
    print(f"best possible accuracy on these clips as made: {ceilings_text}")
    print(f"report: {report_path}")
    return summary


def summarise_scores(scores: ScoreFields) -> ScoreFields:
    """Returns a copy of the scores with only `ua`, `wa`, `wf1` and their intervals.

    `ua` is the unweighted accuracy, `wa` the weighted accuracy and `wf1` the weighted F1 score, all fractions
    of 1; `ua_interval`, `wa_interval` and `wf1_interval` are `[low, high]`. Raises KeyError if one is
    missing.
    """
    return {
        "ua": scores["ua"],
        "wa": scores["wa"],
        "wf1": scores["wf1"],
        "ua_interval": scores["ua_interval"],
        "wa_interval": scores["wa_interval"],
        "wf1_interval": scores["wf1_interval"],
    }


def predict_new_clip(run_directory: str) -> None:
    """Exports the network `both`, and prints its prediction for a clip of a new speaker.

    The network is the training run in the folder `both` of `run_directory`. Writes the bundle to `bundle` and
    the clip to `new_clip.mp4` in `run_directory`; existing ones are replaced.

    Raises:
      FileNotFoundError: the network has no checkpoint.
      ValueError: the checkpoint is damaged, `bundle` exists and is neither a bundle nor an empty directory,
        the bundle's predictions differ from those of the checkpoint by more than 1e-5, or the clip has no
        prediction.
      OSError: a file cannot be read or written.
      ModuleNotFoundError: a package of the extra `prep` is missing.
      av.FFmpegError: FFmpeg can't encode H.264 or AAC.
    """
    bundle_path = os.path.join(run_directory, "bundle")
    export_bundle(os.path.join(run_directory, "both"), bundle_path)
    path = os.path.join(run_directory, "new_clip.mp4")
    with open(path, "wb") as file:
        file.write(render_clip(speaker=99, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=0))
    (prediction,) = serving.load(bundle_path).predict(path)
    if isinstance(prediction, FailedWindow):
        raise ValueError(
            f"{path}: the new clip has no prediction: {prediction.error}; run the demo again in a new"
            " directory"
        )
    true_class = corpus.CLASSES[corpus.class_of(1, 0, 1)]
    print(f"{path}, made as {true_class!r}:")
    for name, probability in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        print(f"  {name:<10} {probability:6.3f}  {'#' * round(40 * probability)}")
