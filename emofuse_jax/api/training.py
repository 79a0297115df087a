"""Trains and cross-validates with a data card in every directory of a run."""

import ml_collections

from emofuse_jax.reporting.cards import write_data_card
from emofuse_jax.training import loop
from emofuse_jax.training.crossval import crossval as replicas
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment


def train(experiment: Experiment, workdir: str) -> EarlyStoppingTracker:
    """Trains one model and writes its data card; `training.loop.train` has the arguments and the errors."""
    return loop.train(experiment, workdir, describe_data=write_data_card)


def crossval(
    config: ml_collections.ConfigDict, workdir: str, *, seeds: int, folds: list[int] | None = None
) -> dict:
    """Cross-validates and writes the data card of every replica; `training.crossval.crossval` has the
    arguments."""
    return replicas.crossval(config, workdir, seeds=seeds, folds=folds, describe_data=write_data_card)
