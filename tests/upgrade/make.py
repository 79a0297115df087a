"""Writes fixtures of the code that is imported; those of older versions were written by older code.

    python -m tests.upgrade.make NAME...        # of MAKERS: records-1, bundle-2-int8, ..

A fixture is `<kind>-<schema>[-<form>]-<commit>.tar.xz` and a JSON of the numbers that its own code read.
After a SCHEMA_VERSION is raised, write the new version's; those that are here stay as they are.

The older ones are of their commit's code, in its own work tree, with the libraries of November 2026:

    git worktree add --detach /tmp/old COMMIT
    cd /tmp/old && PYTHONPATH=. JAX_PLATFORMS=cpu python /path/to/tests/upgrade/make.py NAME...

9f5193e, the first whose preparation, training and export ran: records-1 checkpoint-1 bundle-1; c0398f5, the
first with frozen encoders: records-2; e52d263, the first with waveforms: records-3; 26c9e71, the last that
wrote bundles of fewer bits as schema 1, and the replicas of a cross-validation only between epochs:
bundle-1-int8 checkpoint-1-averaged replicas-1. bundle-2-int8 bundle-2-bf16 are of the change after it.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

import jax
import numpy as np

from benchmarks.feature_records import CorpusSpec, write_features
from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import AudioSettings, FaceSettings, PrepSettings
from data_prep.synth.clip import render_clip
from emofuse_jax.api.evaluation import evaluate_workdir
from emofuse_jax.api.export import export_bundle
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.serving import load
from emofuse_jax.training.crossval.crossval import crossval
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.loop import train
from emofuse_jax.training.metric_writer import read_epoch_rows
from tests.data_prep.media_files import tone, write_wav
from tests.fakes import tiny_config
from tests.training.test_crossval import small_config

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
AUDIO, FACES = AudioSettings(bins=70, hop_ms=40.0), FaceSettings(frames=2, size=16)
AUDIO_STEPS = 70  # the least that five layers of AlexNet's strides can take
CLIP_SECONDS = 1.2


def main(names: list[str]) -> None:
    """Writes the named fixtures."""
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
    for name in names:
        kind, schema = name.split("-")[:2]
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            numbers = MAKERS[name](scratch)
            path = FIXTURES / f"{name}-{commit.stdout.strip()}"
            pack(scratch / kind, path.with_suffix(".tar.xz"))
            metadata = {"kind": kind, "schema": int(schema), "jax": jax.__version__}
            path.with_suffix(".json").write_text(json.dumps(metadata | {"numbers": numbers}, indent=1) + "\n")


def pack(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Equal files give an equal archive."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return entry

    with tarfile.open(path, "w:xz", format=tarfile.USTAR_FORMAT, preset=9) as archive:
        for name in sorted(folder.rglob("*")):
            archive.add(name, str(name.relative_to(folder)), recursive=False, filter=plain)


def unpack(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The files of a fixture, in a new folder."""
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def make_clips(folder: pathlib.Path) -> str:
    """Two drawn films of each of three speakers, cut to their beginning."""
    folder.mkdir()
    table = ["path,label,speaker,start,end"]
    for i in range(6):
        video = render_clip(speaker=90 + i // 2, p=i % 2, s_f=0, s_v=i % 2, damage="", corpus_seed=0, seed=i)
        (folder / f"{i}.mp4").write_bytes(video)
        table.append(f"{i}.mp4,{('low', 'high')[i % 2]},s{i // 2},0,{CLIP_SECONDS}")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    return str(folder)


def make_tensor_records(scratch: pathlib.Path) -> dict:
    """Records of schema 1: spectrograms and crops."""
    settings = PrepSettings(audio=AUDIO, face=FACES)
    corpus = read_corpus("folder", make_clips(scratch / "clips"))
    prepare(corpus, settings, str(scratch / "records"), workers=0, shards=2)
    return summarise_records(scratch / "records")


def make_feature_records(scratch: pathlib.Path) -> dict:
    """Records of schema 2: what frozen encoders said, and nothing else."""
    from tests.data_prep.feature_corpus import make_encoders, run_prepare

    clips, files = make_clips(scratch / "clips"), make_encoders(scratch / "encoders")
    run_prepare(clips, scratch / "records", files, "drop")
    return summarise_records(scratch / "records")


def make_waveform_records(scratch: pathlib.Path) -> dict:
    """Records of schema 3: sounds without a picture, beside their spectrograms."""
    folder = scratch / "clips"
    folder.mkdir()
    table = ["path,label,speaker"]
    for i in range(3):
        write_wav(folder / f"{i}.wav", tone(0.2, 200 + 100 * i, rate=16_000))
        table.append(f"{i}.wav,{('low', 'high')[i % 2]},s{i}")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    settings = PrepSettings(audio=dataclasses.replace(AUDIO, waveform=True), face=FACES)
    prepare(read_corpus("folder", str(folder)), settings, str(scratch / "records"), workers=0, shards=1)
    return summarise_records(scratch / "records")


def summarise_records(path: pathlib.Path) -> dict[str, dict]:
    """Of each record's fields: text and flags as they are, the sum of an array with its shape."""
    dataset, summaries = open_dataset(str(path)), {}
    for clip, index in dataset.index.items():
        fields = {k: v for k, v in vars(dataset.read(index)).items() if v is not None and k != "notes"}
        summaries[clip] = {name: summarise_field(value) for name, value in fields.items()}
    return summaries


def summarise_field(value):
    """JSON of a field."""
    if not isinstance(value, np.ndarray):
        return value
    return [*value.shape, float(value.astype(np.float64).sum())]


def make_config(path: pathlib.Path, fusion: str = "am_fbp", **more):
    """Of a network that is a few KB, for two epochs of two steps."""
    fields = {
        "data.batch_size": 1,
        "data.audio_steps": AUDIO_STEPS,
        "train.epochs": 2,
        "train.eval_batch_size": 2,
    }
    config = tiny_config(str(path), fusion, **fields)
    config.augment.frames = 2
    config.model.audio.attention_width = config.model.video.attention_width = config.model.video.embedding = 8
    config.model.audio.widths = (4,) * 5
    if fusion == "am_fbp":
        config.model.fusion.update(width=8, gate_width=8, parts=2)
    config.mesh.data = 1
    config.update_from_flattened_dict(more)
    return config


class TrainingStopped(Exception):
    """The run's end, before it is there."""


@contextlib.contextmanager
def stop_at_second_save(save: str):
    """Ends what runs in it where this function of training/checkpoint/store.py is called for a second
    step."""
    from emofuse_jax.training.checkpoint import store

    original_save, saved_steps = getattr(store, save), []

    def save_once(workdir, kind, state_or_step, *rest):
        saved_steps.append(
            int(getattr(state_or_step, "step", state_or_step))
        )  # of a state, or the step itself
        if saved_steps[-1] > saved_steps[0]:
            raise TrainingStopped
        original_save(workdir, kind, state_or_step, *rest)

    setattr(store, save, save_once)
    with contextlib.suppress(TrainingStopped):
        yield
    setattr(store, save, original_save)


def train_half(settings, workdir: pathlib.Path) -> None:
    """A run that is stopped after its first epoch's checkpoints."""
    with stop_at_second_save("save"):
        train(open_experiment(settings), str(workdir))


def make_checkpoint(scratch: pathlib.Path) -> dict:
    """The workdir of half a run on the oldest records."""
    workdir, name = scratch / "checkpoint", "records-1-9f5193e"
    path = unpack(name, scratch / "records")
    train_half(make_config(path), workdir)
    return {"records": name, **score_checkpoint(workdir, path)}


def score_checkpoint(workdir: pathlib.Path, path: pathlib.Path) -> dict:
    """What its best checkpoint says of the test clips."""
    results, _ = evaluate_workdir(str(workdir), data_path=str(path), example_count=0)
    return {"clips": results["clips"], "probabilities": results["probabilities"]}


def make_averaged(scratch: pathlib.Path) -> dict:
    """Such a run whose parameters are averaged; it goes on from those that are not, to these losses."""
    workdir, name = scratch / "checkpoint", "records-1-9f5193e"
    path = unpack(name, scratch / "records")
    settings = make_config(path, "audio_only", **{"optimizer.ema": 0.75, "optimizer.learning_rate": 0.01})
    train_half(settings, workdir)
    numbers = {"records": name, **score_checkpoint(workdir, path)}
    complete_run = shutil.copytree(workdir, scratch / "whole")
    train(open_experiment(settings), str(complete_run))
    return numbers | {"train_loss": [row["train_loss"] for row in read_epoch_rows(str(complete_run))]}


def make_replicas(scratch: pathlib.Path) -> dict:
    """A cross-validation that is stopped after its first epoch, its records, and what it comes to."""
    feature_spec = CorpusSpec(clips=24, speakers=3, folds=3, classes=2, steps=4, audio=6, frames=3, face=5)
    path = write_features(str(scratch / "replicas" / "records"), feature_spec)
    workdir = scratch / "replicas" / "run"
    fields = {"train.epochs": 2, "crossval.save_seconds": 0.0, "data.audio_steps": 4}
    settings = small_config(path, "audio_only", **fields, **{"model.audio.attention_width": 4})
    with stop_at_second_save("save_items"):
        crossval(settings, str(workdir), seeds=1, folds=[0, 1])
    complete_run = shutil.copytree(workdir, scratch / "whole")
    results = crossval(settings, str(complete_run), seeds=1, folds=[0, 1])
    return {f"fold_{run['fold']}": run["probabilities"] for run in results["runs"]}


def make_bundle(scratch: pathlib.Path, fusion: str = "am_fbp", **more) -> dict:
    """The bundle of such a run, with a sound and its answer."""
    path = unpack("records-1-9f5193e", scratch / "records")
    train_half(make_config(path, fusion), scratch / "run")
    (scratch / "bundle").mkdir()
    export_bundle(str(scratch / "run"), str(scratch / "bundle" / "bundle"), **more)
    write_wav(scratch / "bundle" / "clip.wav", tone(0.2, rate=16_000))
    bundle = load(str(scratch / "bundle" / "bundle"))
    (prediction,) = bundle.predict(str(scratch / "bundle" / "clip.wav"))
    return {"label": prediction.label, "probabilities": prediction.probabilities}


INT8 = functools.partial(make_bundle, fusion="audio_only", quantize="int8")
BF16 = functools.partial(make_bundle, fusion="audio_only", quantize="bf16")
MAKERS = {
    "records-1": make_tensor_records,
    "records-2": make_feature_records,
    "records-3": make_waveform_records,
    "checkpoint-1": make_checkpoint,
    "checkpoint-1-averaged": make_averaged,
    "replicas-1": make_replicas,
    "bundle-1": make_bundle,
    "bundle-1-int8": INT8,
    "bundle-2-int8": INT8,
    "bundle-2-bf16": BF16,
}

if __name__ == "__main__":
    main(sys.argv[1:])
