"""Trains and cross-validates with a data card in every directory of a run."""

from emofuse_jax.reporting.cards import write_data_card
from emofuse_jax.scoring.result_types import CrossvalFile
from emofuse_jax.training.crossval import crossval as replicas
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.train import train as train_model
from emofuse_jax.utils.config_dict import ConfigDict


def train(experiment: Experiment, workdir: str) -> EarlyStoppingTracker:
    """Trains one model, and writes checkpoints, metrics.jsonl and a data card to `workdir`.

    Returns:
      The tracker of the best epoch, for example `best_step` and `best_ua` (validation score).

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: another process trains in `workdir`, its checkpoint belongs to another config or other data,
        a batch size does not fit the devices, a device runs out of memory, or the loss or a parameter is NaN
        or infinite.
      OSError: a file cannot be read or written.
    """
    return train_model(experiment, workdir, describe_data=write_data_card)


def crossval(config: ConfigDict, workdir: str, *, seeds: int, folds: list[int] | None = None) -> CrossvalFile:
    """Cross-validates, and writes the checkpoints and a data card of every fold and seed below `workdir`.

    Takes the arguments of `training.crossval.crossval.crossval`.

    Returns:
      The contents of results.json: `runs` with the predictions and scores of each fold and seed, `pooled`
      scores, and the names of protocol, corpus and classes. The file itself is not written here.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: a config field does not fit cross-validation, a fold has no test clips or shares a speaker
        between training and test, `workdir` contains another cross-validation or is used by another process,
        a model does not fit into the memory of a device, or its loss is NaN or infinite.
      FileNotFoundError: the dataset, the protocol or a fold does not exist.
      OSError: a file cannot be read or written.
    """
    return replicas.crossval(config, workdir, seeds=seeds, folds=folds, describe_data=write_data_card)
