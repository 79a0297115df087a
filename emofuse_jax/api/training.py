"""Trains and cross-validates with a data card in every directory of a run."""

from emofuse_jax.reporting.cards import write_data_card
from emofuse_jax.scoring.result_types import CrossvalFile
from emofuse_jax.training.crossval import crossval as replicas
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.train import train as train_model
from emofuse_jax.utils.config_dict import ConfigDict


def train(experiment: Experiment, workdir: str) -> EarlyStoppingTracker:
    """Trains one model, or continues an interrupted training in `workdir`.

    Writes `checkpoints/best`, `checkpoints/last`, `metrics.jsonl`, `tensorboard/` and `DATA_CARD.md`.

    Args:
      experiment: config, records, clips of each split and model, as `open_experiment` returns them.
      workdir: directory to write; it is created.

    Returns:
      The tracker of the best epoch: `best_ua` (mean recall of the classes on the validation clips, a
      fraction; None if no clips are held out, then the last epoch counts as the best), `best_step` (training
      step at its end), `since_best` (epochs since then) and `temperature`, by which the logits are divided
      for predictions.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: another process trains in `workdir`, its checkpoint is damaged or belongs to another config
        or other data, a config field is invalid, there are fewer training clips than a batch, a batch size
        does not fit the devices, a record is damaged, a device runs out of memory, or the loss or a parameter
        is NaN or infinite.
      FileNotFoundError: the workdir in `config.init` has no checkpoint, or the file of the fold is gone.
      OSError: a file cannot be read or written.
      TypeError, AttributeError: the metadata of the checkpoint in `workdir` are damaged, or a note in
        prep.json is not a text.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.
    """
    return train_model(experiment, workdir, describe_data=write_data_card)


def crossval(config: ConfigDict, workdir: str, *, seeds: int, folds: list[int] | None = None) -> CrossvalFile:
    """Cross-validates, and writes the checkpoints and a data card of every fold and seed below `workdir`.

    The directory of a fold and seed is `runs/fold_<i>_seed_<j>/`. results.json is not written.

    Args:
      config: config of the experiment; `data.fold` and `mesh` are not used.
      workdir: output directory; resumed if it contains the same cross-validation.
      seeds: number of seeds per fold: `config.seed` and those that follow; at least 1.
      folds: numbers of the folds, at least one; None: all folds of the protocol.

    Returns:
      The contents of results.json, a dict. `runs` has a dict for each fold and seed: `fold`, `seed`, the
      scores `test` (with the keys of `pooled`) and `validation` (only `ua`, None if no clips are held out),
      `best_step`, `epochs`, `temperature`, and lists with one entry per test clip: `clips` (clip_ids),
      `speakers`, `labels` (class indices, -1 without a label) and `probabilities` (one per class). `pooled`
      has the scores of all predictions together: `ua` (mean recall of the classes), `wa` (accuracy) and `wf1`
      (F1 weighted by class size) as fractions of 1, their 95 % intervals such as `ua_interval`, and
      `confusion` (rows true classes). `mean` and `sd` have the mean and the standard deviation of `ua`, `wa`
      and `wf1` over the runs; with several seeds, `ensemble`, like `pooled`, has the scores after averaging
      the predictions of the seeds. The facts about the run are `protocol`, `config`, `corpus`, `dataset`,
      `date`, `classes`, `modalities`, `leaky`, `leaks` and `versions`.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: a config field is invalid or does not fit cross-validation, a file of the records is
        damaged, a fold has no test clips, fewer training clips than a batch, or shares a speaker between
        training and test, `workdir` contains another cross-validation or is used by another process, a model
        does not fit into the memory of a device, or its loss is NaN or infinite.
      FileNotFoundError: the dataset, the protocol, a fold or the checkpoint in `config.init` does not exist.
      OSError: a file cannot be read or written.
      TypeError, AttributeError: the metadata of the saved state are damaged, a note in prep.json is not a
        text, or the config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.
    """
    return replicas.crossval(config, workdir, seeds=seeds, folds=folds, describe_data=write_data_card)
