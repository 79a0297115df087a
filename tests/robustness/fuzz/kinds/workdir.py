"""What a command that goes on finds where it wrote before: logs, plans, results and answers."""

import contextlib
import os
import shutil
import tempfile
import types

from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.serving import prediction_file
from emofuse_jax.serving.bundle import format
from emofuse_jax.training.crossval import replica_results, sweep
from emofuse_jax.training.crossval.plan import read_or_make_plan
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import MetricWriter, read_epoch_rows
from emofuse_jax.utils.files import write_json
from tests.robustness.fuzz.damage import damage_tree, make_rng, read_tree
from tests.support.fakes import tiny_config, write_dataset

NAMED = r"config\."
"""A field in which a plan differs; else the path is in the text."""
OWN_PICKLES = True
"""TensorBoard's writer hands its events to its thread in them."""
REPLICA_IDS = [(fold, seed) for fold in (0, 1) for seed in (0, 1)]
TRIALS = [{"optimizer.learning_rate": 0.01}, {"model.fusion.width": 8}]
TRIAL_IDS = [(0, 0, number) for number in range(len(TRIALS))]
EPOCH_ROWS = [{"epoch": epoch, "train_loss": 1.0 / epoch, "validation_ua": 0.5} for epoch in (1, 2, 3)]
COMMANDS = ("run", "crossed", "swept", "answers")
SUFFIXES = (".jsonl", ".parquet")


def make(folder: str) -> None:
    """A prepared directory, and the workdirs of a training, a cross-validation, a search and a prediction."""
    records, workdirs = os.path.join(folder, "records"), os.path.join(folder, "made")
    write_dataset(records)
    experiment = _experiment(folder)
    os.makedirs(os.path.join(workdirs, "run"))
    writer = MetricWriter(os.path.join(workdirs, "run"), resume_step=0, active=True)
    for row in EPOCH_ROWS:
        writer.write(row["epoch"], "step", {"loss": row["train_loss"]})
        writer.write_epoch(row["epoch"], row, None, experiment.dataset.classes)
    writer.close()
    write_json(
        os.path.join(workdirs, "crossed", "crossval.json"),
        _read_crossval_plan(os.path.join(workdirs, "crossed"), experiment),
    )
    for replica_id in REPLICA_IDS:
        write_json(
            replica_results.replica_result_path(os.path.join(workdirs, "crossed"), replica_id),
            _make_result(experiment, replica_id),
        )
    write_json(
        os.path.join(workdirs, "swept", "crossval.json"),
        _read_sweep_plan(os.path.join(workdirs, "swept"), experiment),
    )
    for replica_id in TRIAL_IDS:
        result = {
            "fold": 0,
            "seed": 0,
            "validation_ua": 0.5,
            "best_step": 3,
            "last_ua": 0.25,
            "history": EPOCH_ROWS,
        }
        write_json(sweep.trial_result_path(os.path.join(workdirs, "swept"), replica_id), result)
    os.makedirs(os.path.join(workdirs, "bundle"))
    with open(os.path.join(workdirs, "bundle", format.MANIFEST_FILE), "w") as file:
        file.write("{}\n")
    for suffix in SUFFIXES:
        _start_predictions(workdirs, os.path.join(workdirs, f"answers{suffix}"))


def load(folder: str):
    """The workdirs, their files that are read, and the experiment; whole ones are read once."""
    workdirs = os.path.join(folder, "made")
    files = {name: data for name, data in read_tree(workdirs).items() if _is_read(name)}
    experiment = _experiment(folder)
    with tempfile.TemporaryDirectory() as scratch:
        complete = shutil.copytree(workdirs, os.path.join(scratch, "made"))
        for command in COMMANDS:
            _resume(command, complete, experiment, resume_step=2)
    return workdirs, files, experiment


def attempt(case, seed: int, scratch: str) -> None:
    """One of the commands goes on."""
    workdirs, files, experiment = case
    rng = make_rng("workdir", seed)
    command = COMMANDS[rng.integers(len(COMMANDS))]
    chosen = {name: data for name, data in files.items() if name.startswith(command)}
    path = os.path.join(scratch, "made")
    damage_tree(workdirs, path, chosen, rng)
    _resume(command, path, experiment, resume_step=int(rng.integers(4)))


def _resume(command: str, path: str, experiment, resume_step: int) -> None:
    if command == "run":
        MetricWriter(os.path.join(path, "run"), resume_step=resume_step, active=True).close()
        read_epoch_rows(os.path.join(path, "run"))
    elif command == "crossed":
        _read_crossval(os.path.join(path, "crossed"), experiment)
    elif command == "swept":
        _read_sweep_plan(os.path.join(path, "swept"), experiment)
        for number, trial in enumerate(TRIALS):
            sweep.summarise_trial(os.path.join(path, "swept"), number, trial, TRIAL_IDS)
    else:
        for suffix in SUFFIXES:
            with prediction_file.open_prediction_writer(
                os.path.join(path, f"answers{suffix}"), _bundle(path), 0.5
            ) as writer:
                writer.add("c.wav", [_make_prediction("c.wav")])


def _is_read(name: str) -> bool:
    return "tensorboard" not in name and not name.startswith("bundle")


def _experiment(folder: str):
    return open_experiment(tiny_config(os.path.join(folder, "records"), "audio_only"))


def _read_crossval_plan(path: str, experiment) -> dict:
    return read_or_make_plan(path, experiment.config, REPLICA_IDS)


def _read_sweep_plan(path: str, experiment) -> dict:
    return read_or_make_plan(path, experiment.config, TRIAL_IDS, trials=TRIALS)


def _read_crossval(path: str, experiment) -> None:
    _read_crossval_plan(path, experiment)
    make_crossval_results(
        replica_results.read_replica_results(path, REPLICA_IDS, len(experiment.dataset.classes)),
        experiment.config,
        experiment.dataset,
        experiment.protocol,
        [],
    )


def _make_result(experiment, replica_id) -> dict:
    """As crossval.make_result gives it, of answers that are made up."""
    clips = [experiment.dataset.clip_ids[clip] for clip in experiment.clips["test"]]
    replica_fields = {
        "fold": replica_id[0],
        "seed": replica_id[1],
        "validation": {"ua": 0.5},
        "best_step": 3,
        "temperature": 1.5,
    }
    scores = {"test": {"ua": 0.5, "wa": 0.5, "wf1": 0.5}, "epochs": 3, "clips": clips}
    speakers = [experiment.dataset.speaker_of[clip] for clip in clips]
    predictions = {
        "labels": [i % 3 for i in range(len(clips))],
        "probabilities": [[0.5, 0.25, 0.25]] * len(clips),
    }
    return {**replica_fields, **scores, "speakers": speakers, **predictions}


def _bundle(path: str):
    return types.SimpleNamespace(path=os.path.join(path, "bundle"), classes=("a", "b"))


def _start_predictions(path: str, output: str) -> None:
    """The answers of two files, and the command is stopped."""
    with (
        contextlib.suppress(KeyError),
        prediction_file.open_prediction_writer(output, _bundle(path), 0.5) as writer,
    ):
        for name in ("a.wav", "b.wav"):
            writer.add(
                name, [_make_prediction(name), {"path": name, "start": 1.0, "end": 2.0, "error": "short"}]
            )
        raise KeyError


def _make_prediction(path: str) -> dict:
    probabilities = {"a": 0.75, "b": 0.25}
    predicted = {"label": "a", "confidence": 0.75, "probabilities": probabilities}
    return {"path": path, "start": 0.0, "end": 1.0, **predicted, "voice_weight": None, "audio_ok": True}
