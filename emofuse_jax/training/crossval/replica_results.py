"""Writes and reads the results of the replicas of a cross-validation, each in a directory of its own."""

import os
from collections.abc import Callable, Sequence

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.scoring.predict import Predictions, score_predictions
from emofuse_jax.scoring.result_types import ReplicaResult
from emofuse_jax.training.crossval.saved_results import read_replica_result
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.replica_set import ReplicaId, RunProgress, TestedReplicas
from emofuse_jax.utils.files import write_json


def write_group_results(
    group: TestedReplicas,
    progress: RunProgress,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None],
) -> None:
    """Tests the replicas of a trained group, and writes the results of each one.

    The files are `checkpoints/best`, `metrics.jsonl` and `result.json` in `<workdir>/runs/fold_<i>_seed_<j>`,
    and those of `describe_data(directory, dataset)`, which is called for each replica. Existing files are
    replaced. Every process must call this function.

    Args:
      group: trained replicas (TestedReplicas, such as StackedReplicas), with their best models and histories.
      progress: has the best validation result of each replica (`trackers`).
      workdir: workdir of the cross-validation.
      describe_data: called in the first process; its errors pass through.

    Raises:
      ValueError: if no test clip of a fold has a label, if a record is damaged, or if an existing
        `metrics.jsonl` or the file of the fold is invalid.
      OSError: if a file cannot be written, or the file of the fold is missing or cannot be read.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
    """
    test_predictions = group.predict_test()
    replica_ids = list(dict.fromkeys(group.replica_ids))
    group.write_models([replica_directory(workdir, replica_id) for replica_id in replica_ids], progress)
    if not is_first_process():
        return
    histories = group.read_histories()
    for i, replica_id in enumerate(replica_ids):
        experiment = group.experiments[i]
        describe_data(replica_directory(workdir, replica_id), experiment.dataset)
        result = make_replica_result(experiment, progress.trackers[i], len(histories[i]), test_predictions[i])
        write_json(replica_result_path(workdir, replica_id), result)


def make_replica_result(
    experiment: Experiment, tracker: EarlyStoppingTracker, epochs: int, test_predictions: Predictions
) -> ReplicaResult:
    """Returns the contents of `result.json` of a replica that was trained for `epochs` epochs.

    Args:
      experiment: experiment of the replica.
      tracker: its best validation result: `best_ua`, `best_step` and `temperature`.
      epochs: number of epochs.
      test_predictions: predictions of its test clips: their record indices (`clips`), `labels` and
        `probabilities`.

    Returns:
      A dict: `fold`, `seed`, `validation` (`ua`, None if no clips are held out), `test` (`ua`, `wa`, `wf1`),
      `best_step`, `temperature`, `epochs` (their number), and lists with one entry per test clip: `clips`
      (clip_ids), `speakers`, `labels` (-1 without a label) and `probabilities` (before the temperature is
      applied). Scores are fractions.

    Raises:
      ValueError: if no test clip has a label.
    """
    dataset = experiment.dataset
    clip_ids = [dataset.clip_ids[clip] for clip in test_predictions.clips]
    scores = score_predictions(test_predictions, with_intervals=False)
    return {
        "fold": experiment.config.data.fold,
        "seed": experiment.config.seed,
        "validation": {"ua": tracker.best_ua},
        "test": {"ua": scores["ua"], "wa": scores["wa"], "wf1": scores["wf1"]},
        "best_step": tracker.best_step,
        "temperature": tracker.temperature,
        "epochs": epochs,
        "clips": clip_ids,
        "speakers": [dataset.speaker_of[name] for name in clip_ids],
        "labels": test_predictions.labels.tolist(),
        "probabilities": test_predictions.probabilities.tolist(),
    }


def read_replica_results(
    workdir: str, replica_ids: Sequence[ReplicaId], num_classes: int
) -> list[ReplicaResult]:
    """Reads `<workdir>/runs/fold_<i>_seed_<j>/result.json` of each replica.

    Returns:
      One dict per replica, in their order: `fold`, `seed`, `validation` (`ua`, None if no clips
      are held out), `test` (`ua`, `wa`, `wf1`), `best_step`, `temperature`, `epochs` (their number), and
      lists with one entry per test clip: `clips` (clip_ids), `speakers`, `labels` (-1 without a label) and
      `probabilities` (one per class). Scores are fractions.

    Raises:
      ValueError: if one of the files is invalid; the message names the file and the field.
      OSError: if one of the files does not exist or cannot be read.
    """
    return [
        read_replica_result(replica_result_path(workdir, replica_id), num_classes)
        for replica_id in replica_ids
    ]


def replica_directory(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/runs/fold_<i>_seed_<j>`, the directory of all files of a replica."""
    return os.path.join(workdir, "runs", f"fold_{replica_id[0]}_seed_{replica_id[1]}")


def replica_result_path(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/runs/fold_<i>_seed_<j>/result.json`, the path of the result of a replica.

    The file exists once the replica is finished.
    """
    return os.path.join(replica_directory(workdir, replica_id), "result.json")
