"""The steps of the demo, each resumable, each the same function as its own command."""

import os
import time

from data_prep.corpora import demo as corpus
from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import RECIPES
from data_prep.synth.clip import render_clip
from emofuse_jax import serving, settings
from emofuse_jax.api import evaluation
from emofuse_jax.api.export import export_bundle
from emofuse_jax.api.training import train
from emofuse_jax.reporting import run_report, terminal
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.progress_bar import progress_bar

NETWORKS = {"voice": "audio_only", "face": "video_only", "both": "am_fbp"}
PROTOCOL = "demo_1fold"
SUMMARY_FIELDS = ("ua", "wa", "wf1", "ua_interval", "wa_interval", "wf1_interval")


def run_demo(
    output: str, *, seed: int, clips_per_speaker: int, epochs: int | None, workers: int | None
) -> dict:
    """Makes everything under `output`; prints a table, the report's path and one prediction.

    The corpus and its records are made once; networks of a seed other than 0 go to `seed_<n>` beside them.
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
        raise ValueError(f"{records_directory}: {prepared.problems[0]}")
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
    """Announces a step."""
    print(f"[{step_number}/7] {description}", flush=True)


def make_network_config(records_directory: str, fusion: str, seed: int, epochs: int | None):
    """The demo config of a fusion, on these records."""
    config = settings.small(fusion)
    config.seed, config.data.path, config.data.protocol = seed, records_directory, PROTOCOL
    config.train.epochs = epochs or config.train.epochs
    return config


def score_networks(run_directory: str, clips_directory: str) -> dict:
    """Scores the three networks on the test speakers, writes the report of both, prints the table."""
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
    summary = {name: {key: main_scores[name][key] for key in SUMMARY_FIELDS} for name in NETWORKS} | {
        "ceilings": ceilings
    }
    report_path = os.path.join(run_directory, "report.html")
    run_report.write_report(
        report_path,
        results=results,
        history=read_epoch_rows(os.path.join(run_directory, "both")),
        examples=examples,
        title="emofuse demo: AM-FBP",
        comparison=summary,
        marks=evaluation.result_marks(results),
    )
    terminal.print_scores(main_scores, "test speakers, 95 % intervals by speaker")
    ceilings_text = ", ".join(f"{name} {100 * value:.1f}" for name, value in ceilings.items())
    print(f"best possible accuracy on these clips as made: {ceilings_text}")
    print(f"report: {report_path}")
    return summary


def predict_new_clip(run_directory: str) -> None:
    """Exports the network of both streams; answers for a clip of a speaker whom the corpus does not have."""
    bundle_path = os.path.join(run_directory, "bundle")
    export_bundle(os.path.join(run_directory, "both"), bundle_path)
    path = os.path.join(run_directory, "new_clip.mp4")
    with open(path, "wb") as file:
        file.write(render_clip(speaker=99, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=0))
    (prediction,) = serving.load(bundle_path).predict(path)
    true_class = corpus.CLASSES[corpus.class_of(1, 0, 1)]
    print(f"{path}, made as {true_class!r}:")
    for name, probability in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        print(f"  {name:<10} {probability:6.3f}  {'#' * round(40 * probability)}")
