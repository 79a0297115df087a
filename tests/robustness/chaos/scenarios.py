"""The four commands that are killed, on small inputs, and what of their results must come out the same."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.feature_records import CorpusSpec, write_features
from emofuse_jax.api.evaluation import load_trained_experiment
from emofuse_jax.api.export import export_bundle
from emofuse_jax.training.metric_writer import read_metric_rows
from tests.support.bundles import save_checkpoint
from tests.support.media_files import tone, write_wav
from tests.support.small_corpus import file_checksums, make_source

FEATURE_SPEC = CorpusSpec(
    clips=96, speakers=6, folds=3, classes=3, steps=8, audio=12, frames=6, face=10, shift=0.25
)
TIMING_FIELDS = ("clips_per_second", "waiting")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A command that writes below a directory."""

    script: str
    arguments: Callable[..., list[str]]
    """Of a directory, and of the number of workers where there are any."""
    digest: Callable[[str], dict[str, str]]
    """Name to checksum of each result below a directory."""
    workers: tuple[int, ...] = ()
    """How many may be asked for: the results are the same."""


def make_scenarios(home: str) -> dict[str, Scenario]:
    """Writes the inputs below `home`, and gives the scenarios by name."""
    source = make_source(pathlib.Path(home, "source"), num_speakers=6, num_takes=4)
    records = write_features(os.path.join(home, "records"), FEATURE_SPEC)
    clips, bundle = make_clips(home), os.path.join(home, "bundle")
    export_bundle(save_checkpoint(pathlib.Path(home, "voice"), "audio_only").workdir, bundle)
    train_flags = ["--config=tests/robustness/chaos/small_config.py", f"--config.data.path={records}"]
    prepare_flags = ["--corpus=folder", f"--source={source}", "--frames=4", "--face_size=32", "--shards=5"]
    return {
        "prepare": Scenario(
            "launch/prepare.py",
            lambda directory, workers=1: [
                *prepare_flags,
                f"--output={directory}/records",
                f"--workers={workers}",
            ],
            digest_prepared,
            workers=(1, 2),
        ),
        "train": Scenario(
            "launch/train.py", lambda directory: [*train_flags, f"--workdir={directory}/run"], digest_training
        ),
        "crossval": Scenario(
            "launch/crossval.py",
            lambda directory: [*train_flags, f"--workdir={directory}/run"],
            digest_crossval,
        ),
        "predict": Scenario(
            "launch/predict.py",
            lambda directory: [
                f"--bundle={bundle}",
                f"--output={directory}/answers.jsonl",
                "--workers=1",
                *clips,
            ],
            digest_predictions,
        ),
    }


def make_clips(home: str, count: int = 24) -> list[str]:
    """Tones of a few windows' length."""
    folder = pathlib.Path(home, "clips")
    folder.mkdir(parents=True)
    paths = [folder / f"{i:02d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        write_wav(path, tone(2.0, 150 + 20 * i, rate=16_000))
    return [str(path) for path in paths]


def digest_prepared(directory: str) -> dict[str, str]:
    """Every file, whatever it is."""
    return file_checksums(os.path.join(directory, "records"))


def digest_training(directory: str) -> dict[str, str]:
    """Parameters and state of both checkpoints, and the history without its clocks."""
    workdir = os.path.join(directory, "run")
    rows = [
        {k: v for k, v in row.items() if k not in TIMING_FIELDS}
        for row in read_metric_rows(f"{workdir}/metrics.jsonl")
    ]
    return {"metrics.jsonl": json_digest(rows), **digest_arrays(workdir, ("last", "best"))}


def digest_crossval(directory: str) -> dict[str, str]:
    """All results, and each replica's parameters."""
    workdir = os.path.join(directory, "run")
    with open(os.path.join(workdir, "results.json"), encoding="utf-8") as file:
        digests = {"results.json": json_digest(json.load(file))}
    for name in ("row.md", "robustness.json"):
        with open(os.path.join(workdir, name), encoding="utf-8") as file:
            digests[name] = json_digest(file.read())
    for name in ("report.html", "MODEL_CARD.md", "DATA_CARD.md"):  # which tell the day
        digests[name] = str(os.path.getsize(os.path.join(workdir, name)) > 0)
    for name in sorted(os.listdir(os.path.join(workdir, "runs"))):
        run = os.path.join(workdir, "runs", name)
        digests[f"{name}/metrics.jsonl"] = json_digest(read_metric_rows(f"{run}/metrics.jsonl"))
        digests |= {f"{name}/{leaf}": value for leaf, value in digest_arrays(run, ("best",)).items()}
    return digests


def digest_predictions(directory: str) -> dict[str, str]:
    """The one file, with nothing beside it."""
    return file_checksums(directory)


def digest_arrays(workdir: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """Checksum of each array of checkpoints."""
    digests = {}
    for kind in kinds:
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            load_trained_experiment(workdir, kind, "")[1:3]
        ):
            array = np.asarray(leaf)
            digests[f"{kind}{jax.tree_util.keystr(path)}"] = hashlib.sha256(array.tobytes()).hexdigest()
    return digests


def json_digest(value) -> str:
    """Of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
