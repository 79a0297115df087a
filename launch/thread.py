"""The steps of the demo, each resumable, each the same function as its own command."""

import os
import time

from data_prep.pipeline import prepare

from configs import demo as demo_config
from data_prep.corpora import demo as corpus
from data_prep.corpora import read_corpus
from data_prep.settings import RECIPES
from emofuse_jax.train.experiment import open_experiment
from emofuse_jax.train.loop import train

NETWORKS = {"voice": "audio_only", "face": "video_only", "both": "am_fbp"}
PROTOCOL = "demo_1fold"


def run_demo(
    output: str, *, seed: int, clips_per_speaker: int, epochs: int | None, workers: int | None
) -> dict:
    """Makes everything under `output`; prints a table, the report's path and one prediction.

    The corpus and its records are made once; networks of another seed than 0 go to `seed_<n>` beside them.
    """
    began = time.monotonic()
    clips, records = os.path.join(output, "clips"), os.path.join(output, "records")
    home = os.path.join(output, f"seed_{seed}") if seed else output
    say(1, "corpus: drawn faces and synthesised voices, real media files")
    corpus.write_corpus(clips, clips_per_speaker=clips_per_speaker, workers=workers)
    say(2, "records: decode, find faces, write shards")
    prepare(read_corpus("demo", clips), RECIPES["fbp"], records, workers=workers)
    for number, (name, fusion) in enumerate(NETWORKS.items(), 3):
        say(number, f"training: {name} ({fusion})")
        train(open_experiment(network_config(records, fusion, seed, epochs)), os.path.join(home, name))
    say(6, "scores and report")
    results = score_networks(home, clips)
    say(7, "bundle, and a prediction on a clip of somebody new")
    predict_new_clip(output, home)
    return write_summary(home, results, time.monotonic() - began)


def say(number: int, what: str) -> None:
    """Announces a step."""
    print(f"[{number}/7] {what}", flush=True)


def network_config(records: str, fusion: str, seed: int, epochs: int | None):
    """The demo config of a fusion."""
    config = demo_config.get_config(fusion)
    config.seed, config.data.path, config.data.protocol = seed, records, PROTOCOL
    config.train.epochs = epochs or config.train.epochs
    return config
