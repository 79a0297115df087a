"""What a command that goes on finds where it wrote before: logs, plans, results and answers."""

import contextlib
import os
import shutil
import tempfile
import types

from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.serving import prediction_file
from emofuse_jax.serving.bundle import format
from emofuse_jax.training.crossval import crossval, sweep
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import MetricWriter, read_epochs
from emofuse_jax.utils.files import write_json
from tests.fakes import tiny_config, write_dataset
from tests.fuzz.damage import damage_tree, read_tree, rng_of

NAMED = r"config\."
"""A field in which a plan differs; else the path is in the text."""
OWN_PICKLES = True
"""TensorBoard's writer hands its events to its thread in them."""
RUNS = [(fold, seed) for fold in (0, 1) for seed in (0, 1)]
TRIALS = [{"optimizer.learning_rate": 0.01}, {"model.fusion.width": 8}]
SWEPT = [(0, 0, number) for number in range(len(TRIALS))]
ROWS = [{"epoch": epoch, "train_loss": 1.0 / epoch, "validation_ua": 0.5} for epoch in (1, 2, 3)]
COMMANDS = ("run", "crossed", "swept", "answers")
SUFFIXES = (".jsonl", ".parquet")


def make(folder: str) -> None:
    """A prepared directory, and the workdirs of a training, a cross-validation, a search and a prediction."""
    records, made = os.path.join(folder, "records"), os.path.join(folder, "made")
    write_dataset(records)
    base = _experiment(folder)
    os.makedirs(os.path.join(made, "run"))
    writer = MetricWriter(os.path.join(made, "run"), resume_step=0, active=True)
    for row in ROWS:
        writer.write(row["epoch"], "step", {"loss": row["train_loss"]})
        writer.write_epoch(row["epoch"], row, None, base.dataset.classes)
    writer.close()
    write_json(os.path.join(made, "crossed", "crossval.json"), _plan(os.path.join(made, "crossed"), base))
    for run in RUNS:
        write_json(crossval.replica_result_path(os.path.join(made, "crossed"), run), _result(base, run))
    write_json(os.path.join(made, "swept", "crossval.json"), _swept(os.path.join(made, "swept"), base))
    for run in SWEPT:
        found = {"fold": 0, "seed": 0, "validation_ua": 0.5, "best_step": 3, "last_ua": 0.25, "history": ROWS}
        write_json(sweep.trial_result_path(os.path.join(made, "swept"), run), found)
    os.makedirs(os.path.join(made, "bundle"))
    with open(os.path.join(made, "bundle", format.MANIFEST_FILE), "w") as file:
        file.write("{}\n")
    for suffix in SUFFIXES:
        _begin(made, os.path.join(made, f"answers{suffix}"))


def load(folder: str):
    """The workdirs, their files that are read, and the experiment; whole ones are read once."""
    made = os.path.join(folder, "made")
    files = {name: data for name, data in read_tree(made).items() if _is_read(name)}
    base = _experiment(folder)
    with tempfile.TemporaryDirectory() as scratch:
        whole = shutil.copytree(made, os.path.join(scratch, "made"))
        for command in COMMANDS:
            _go_on(command, whole, base, resume_step=2)
    return made, files, base


def attempt(case, seed: int, scratch: str) -> None:
    """One of the commands goes on."""
    made, files, base = case
    rng = rng_of("workdir", seed)
    command = COMMANDS[rng.integers(len(COMMANDS))]
    chosen = {name: data for name, data in files.items() if name.startswith(command)}
    path = os.path.join(scratch, "made")
    damage_tree(made, path, chosen, rng)
    _go_on(command, path, base, resume_step=int(rng.integers(4)))


def _go_on(command: str, path: str, base, resume_step: int) -> None:
    if command == "run":
        MetricWriter(os.path.join(path, "run"), resume_step=resume_step, active=True).close()
        read_epochs(os.path.join(path, "run"))
    elif command == "crossed":
        _cross(os.path.join(path, "crossed"), base)
    elif command == "swept":
        _swept(os.path.join(path, "swept"), base)
        for number, trial in enumerate(TRIALS):
            sweep.summarise_trial(os.path.join(path, "swept"), number, trial, SWEPT)
    else:
        for suffix in SUFFIXES:
            with prediction_file.open_prediction_writer(
                os.path.join(path, f"answers{suffix}"), _bundle(path), 0.5
            ) as gathered:
                gathered.add("c.wav", [_answer("c.wav")])


def _is_read(name: str) -> bool:
    return "tensorboard" not in name and not name.startswith("bundle")


def _experiment(folder: str):
    return open_experiment(tiny_config(os.path.join(folder, "records"), "audio_only"))


def _plan(path: str, base) -> dict:
    return crossval.read_plan(path, base.config, RUNS)


def _swept(path: str, base) -> dict:
    return crossval.read_plan(path, base.config, SWEPT, trials=TRIALS)


def _cross(path: str, base) -> None:
    _plan(path, base)
    job = types.SimpleNamespace(experiments={run: base for run in RUNS})
    make_crossval_results(crossval.read_results(job, path), base.config, base.dataset, base.protocol, [])


def _result(base, run) -> dict:
    """As crossval.result gives it, of answers that are made up."""
    clips = [base.dataset.clip_ids[clip] for clip in base.clips["test"]]
    about = {"fold": run[0], "seed": run[1], "validation": {"ua": 0.5}, "best_step": 3, "temperature": 1.5}
    scores = {"test": {"ua": 0.5, "wa": 0.5, "wf1": 0.5}, "epochs": 3, "clips": clips}
    speakers = [base.dataset.speaker_of[clip] for clip in clips]
    answers = {
        "labels": [i % 3 for i in range(len(clips))],
        "probabilities": [[0.5, 0.25, 0.25]] * len(clips),
    }
    return {**about, **scores, "speakers": speakers, **answers}


def _bundle(path: str):
    return types.SimpleNamespace(path=os.path.join(path, "bundle"), classes=("a", "b"))


def _begin(path: str, output: str) -> None:
    """The answers of two files, and the command is stopped."""
    with (
        contextlib.suppress(KeyError),
        prediction_file.open_prediction_writer(output, _bundle(path), 0.5) as gathered,
    ):
        for name in ("a.wav", "b.wav"):
            gathered.add(name, [_answer(name), {"path": name, "start": 1.0, "end": 2.0, "error": "short"}])
        raise KeyError


def _answer(path: str) -> dict:
    probabilities = {"a": 0.75, "b": 0.25}
    sure = {"label": "a", "confidence": 0.75, "probabilities": probabilities}
    return {"path": path, "start": 0.0, "end": 1.0, **sure, "voice_weight": None, "audio_ok": True}
