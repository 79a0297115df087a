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
from emofuse_jax.training.metric_writer import read_epochs
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.progress_bar import counted

NETWORKS = {"voice": "audio_only", "face": "video_only", "both": "am_fbp"}
PROTOCOL = "demo_1fold"
KEPT = ("ua", "wa", "wf1", "ua_interval", "wa_interval", "wf1_interval")


def run_demo(
    output: str, *, seed: int, clips_per_speaker: int, epochs: int | None, workers: int | None
) -> dict:
    """Makes everything under `output`; prints a table, the report's path and one prediction.

    The corpus and its records are made once; networks of a seed other than 0 go to `seed_<n>` beside them.
    """
    began = time.monotonic()
    clips, records = os.path.join(output, "clips"), os.path.join(output, "records")
    home = os.path.join(output, f"seed_{seed}") if seed else output
    say(1, "corpus: drawn faces and synthesised voices, as real media files")
    with counted("clips") as progress:
        corpus.write_corpus(clips, clips_per_speaker=clips_per_speaker, workers=workers, progress=progress)
    say(2, "records: decode, find faces, write shards")
    with counted("records") as progress:
        prepared = prepare(
            read_corpus("demo", clips), RECIPES["fbp"], records, workers=workers, progress=progress
        )
    if prepared.problems:
        raise ValueError(f"{records}: {prepared.problems[0]}")
    for number, (name, fusion) in enumerate(NETWORKS.items(), 3):
        say(number, f"training: {name} ({fusion})")
        train(open_experiment(network_config(records, fusion, seed, epochs)), os.path.join(home, name))
    say(6, "scores and report")
    summary = score_networks(home, clips)
    say(7, "bundle, and a prediction on a clip of somebody new")
    predict_new_clip(home)
    summary["seconds"] = round(time.monotonic() - began, 1)
    write_json(os.path.join(home, "results.json"), summary)
    print(f"done in {summary['seconds']:.0f} s; results: {os.path.join(home, 'results.json')}")
    return summary


def say(number: int, what: str) -> None:
    """Announces a step."""
    print(f"[{number}/7] {what}", flush=True)


def network_config(records: str, fusion: str, seed: int, epochs: int | None):
    """The demo config of a fusion, on these records."""
    config = settings.small(fusion)
    config.seed, config.data.path, config.data.protocol = seed, records, PROTOCOL
    config.train.epochs = epochs or config.train.epochs
    return config


def score_networks(home: str, clips: str) -> dict:
    """Scores the three networks on the test speakers, writes the report of both, prints the table."""
    scored = {name: evaluation.evaluate_workdir(os.path.join(home, name)) for name in NETWORKS}
    for name, (results, _) in scored.items():
        evaluation.write_results(os.path.join(home, name), results)
    rows = {name: next(iter(results["modalities"].values())) for name, (results, _) in scored.items()}
    results, examples = scored["both"]
    tested = set(results["clips"])
    ceilings = corpus.ceilings(clip for clip in corpus.read_made(clips) if clip.clip_id in tested)
    summary = {name: {key: rows[name][key] for key in KEPT} for name in NETWORKS} | {"ceilings": ceilings}
    page = os.path.join(home, "report.html")
    run_report.write_report(
        page,
        results=results,
        history=read_epochs(os.path.join(home, "both")),
        examples=examples,
        title="emofuse demo: AM-FBP",
        comparison=summary,
        marks=evaluation.result_marks(results),
    )
    terminal.print_scores(rows, "test speakers, 95 % intervals by speaker")
    known = ", ".join(f"{name} {100 * value:.1f}" for name, value in ceilings.items())
    print(f"best possible accuracy on these clips as made: {known}")
    print(f"report: {page}")
    return summary


def predict_new_clip(home: str) -> None:
    """Exports the network of both streams; answers for a clip of a speaker whom the corpus does not have."""
    bundle = os.path.join(home, "bundle")
    export_bundle(os.path.join(home, "both"), bundle)
    path = os.path.join(home, "new_clip.mp4")
    with open(path, "wb") as file:
        file.write(render_clip(speaker=99, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=0))
    (answer,) = serving.load(bundle).predict(path)
    truth = corpus.CLASSES[corpus.class_of(1, 0, 1)]
    print(f"{path}, made as {truth!r}:")
    for name, probability in sorted(answer.probabilities.items(), key=lambda item: -item[1]):
        print(f"  {name:<10} {probability:6.3f}  {'#' * round(40 * probability)}")
