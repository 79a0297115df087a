"""Trains one model on one fold."""

from collections.abc import Callable, Sequence

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.preemption import watch_preemption
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.engine import train_replicas
from emofuse_jax.training.experiment import Experiment, count_epoch_steps
from emofuse_jax.training.progress import show_progress
from emofuse_jax.training.replica_set import EpochScores, RunProgress
from emofuse_jax.training.single_replica import SingleReplica

SHOWN_SCORES = ("train_loss", "train_ua", "validation_ua")
"""Fields of an epoch that the progress line shows."""


def skip_data_description(directory: str, dataset: Dataset) -> None:
    """Does nothing: the default of `describe_data` in `train` and `crossval`."""


def train(
    experiment: Experiment,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None] = skip_data_description,
) -> EarlyStoppingTracker:
    """Trains a model to the last epoch or until validation UA stops improving; resumes an interrupted run.

    Writes `checkpoints/last`, `checkpoints/best`, `metrics.jsonl` and `tensorboard/` to `workdir`. A resumed
    run gives the same numbers bit for bit.

    Args:
      experiment: experiment to train.
      workdir: output directory; resumed if it contains a checkpoint.
      describe_data: called with `workdir` and the dataset in the first process when a new run starts; its
        errors pass through.

    Returns:
      The tracker: the best validation UA (`best_ua`, a fraction), its step (`best_step`), the number of
      epochs since then (`since_best`), and the `temperature` for predictions. If no clips are held out,
      `best_ua` is None, the last epoch counts as the best, and the temperature is `config.train.temperature`.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if another process trains in `workdir`, if a config field is invalid, if the checkpoint or
        `metrics.jsonl` in `workdir` is damaged or belongs to another config or other data, if a warm start
        (`config.init`) is invalid, if a batch size does not fit the devices or there are fewer training clips
        than one batch, if the records lack a field of the batch or do not match prep.json, if no training or
        validation clip has a label, if the fusion returns an invalid state, or if a device runs out of
        memory.
      NonFiniteError: if the loss or a parameter is NaN or infinite (a ValueError); `nonfinite.json` in
        `workdir` then lists the clips of the step, if it can be repeated.
      DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
      TypeError, AttributeError: if a field in the metadata of the checkpoint in `workdir` is damaged.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of the fold no longer
        exists.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    config = experiment.config
    steps_per_epoch = count_epoch_steps(experiment)
    progress_line = show_progress(
        steps_per_epoch * config.train.epochs,
        config.data.batch_size,
        config.name,
        active=is_first_process(),
    )
    with (
        exclusive_workdir(workdir),
        explain_oom(),
        watch_preemption() as should_stop,
        progress_line as show_step,
    ):

        def report_progress(progress: RunProgress, rows: Sequence[EpochScores]) -> None:
            scores = {name: row[name] for row in rows for name in SHOWN_SCORES if name in row}
            show_step(progress.steps_taken(steps_per_epoch), **scores)

        replica, progress = train_replicas(
            lambda: SingleReplica(experiment, workdir, describe_data),
            workdir,
            report_progress=report_progress,
            should_stop=should_stop,
        )
        replica.close(progress)
    (tracker,) = progress.trackers
    return tracker
