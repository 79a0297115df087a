"""Trains the replicas of a cross-validation or sweep in groups, one group after the other."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.stacked_replicas import StackedReplicas
from emofuse_jax.training.engine import train_replicas
from emofuse_jax.training.experiment import Experiment, count_epoch_steps
from emofuse_jax.training.progress import ReportProgress, show_progress
from emofuse_jax.training.replica_set import EpochScores, ReplicaId, RunProgress, TestedReplicas
from emofuse_jax.training.single_replica import SingleReplica
from emofuse_jax.training.train import skip_data_description


@dataclasses.dataclass(frozen=True)
class Packing:
    """Groups of replicas that are trained together, and the function that creates a group."""

    groups: list[list[ReplicaId]]
    """Fold, seed and, in a sweep, trial of the replicas of each group."""
    make_group: Callable[[list[ReplicaId]], TestedReplicas]
    """Creates the untrained replicas of a group."""
    clips_per_epoch: int
    """Number of training clips in an epoch of the largest group, for the progress line."""


def stack_replicas(context: CrossvalContext, group_size: int, workdir: str) -> Packing:
    """Returns the packing of replicas whose states are stacked, vmapped or looped as the context says.

    Args:
      context: data and programs of all replicas.
      group_size: number of replicas in a group.
      workdir: directory for the saved state of the group in training.

    Returns:
      A Packing: `groups`, a list of lists of replica ids; `make_group(replica_ids)`, which creates the
      untrained replicas of a group (StackedReplicas); and `clips_per_epoch`, the number of training clips in
      an epoch of the largest group.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, if `config.data.batch_size` is below
        1, or if `group_size` is 0.
    """
    return Packing(
        split_into_groups(list(context.experiments), group_size, context.mesh.size),
        functools.partial(_make_stacked_group, context, workdir),
        group_size * context.max_epoch_steps * context.config.data.batch_size,
    )


def _make_stacked_group(
    context: CrossvalContext, workdir: str, replica_ids: list[ReplicaId]
) -> StackedReplicas:
    return StackedReplicas(context, replica_ids, workdir)


def train_one_by_one(
    experiments: Mapping[ReplicaId, Experiment], get_directory: Callable[[ReplicaId], str]
) -> Packing:
    """Returns the packing of replicas that are trained one after the other, each on all devices.

    Args:
      experiments: experiment of each replica.
      get_directory: returns the directory of a replica for its checkpoints and metrics.

    Returns:
      A Packing: `groups`, a list of lists of replica ids; `make_group(replica_ids)`, which creates the
      untrained replicas of a group (a SingleReplica); and `clips_per_epoch`, the number of training clips in
      an epoch of the largest group.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, if `config.data.batch_size` is below
        1, or if there are no replicas.
    """

    def make_group(replica_ids: list[ReplicaId]) -> SingleReplica:
        (replica_id,) = replica_ids
        experiment, directory = experiments[replica_id], get_directory(replica_id)
        return SingleReplica(experiment, directory, skip_data_description, replica_id)

    return Packing(
        [[replica_id] for replica_id in experiments],
        make_group,
        max(
            count_epoch_steps(experiment) * experiment.config.data.batch_size
            for experiment in experiments.values()
        ),
    )


def split_into_groups(
    replica_ids: Sequence[ReplicaId], group_size: int, device_count: int
) -> list[list[ReplicaId]]:
    """Splits replicas into groups of `group_size`, and returns the list of replicas of each group.

    The order is kept; the last group can be smaller. A group whose size is not a multiple of `device_count`
    repeats its last replica until it is. Raises ValueError if `group_size` is 0.
    """
    groups = [list(replica_ids[i : i + group_size]) for i in range(0, len(replica_ids), group_size)]
    return [[*group, *group[-1:] * (-len(group) % device_count)] for group in groups]


def train_replica_groups(
    packing: Packing,
    config: ConfigDict,
    workdir: str,
    should_stop: Callable[[], bool],
    *,
    get_result_path: Callable[[str, ReplicaId], str],
    write_results: Callable[[TestedReplicas, RunProgress, str], None],
) -> None:
    """Trains replicas in groups, and writes their results; finished groups are skipped.

    Args:
      packing: `groups`, lists of replica ids; `make_group(replica_ids)`, which creates the replicas of a
        group; and `clips_per_epoch`, for the progress line on the terminal.
      config: config of a replica; its name and `config.train.epochs` are read.
      workdir: output directory, resumed if it contains the saved state of a group.
      should_stop: returns True if the run must save its state and stop; called before each program call and
        after each group.
      get_result_path: called as `get_result_path(workdir, replica_id)`; returns the path of a replica's
        result, which exists once the replica is finished.
      write_results: called as `write_results(group, progress, workdir)`; writes the results of the replicas
        of `group` (TestedReplicas, as `make_group` creates them), whose best validation results are in
        `progress.trackers`. Its errors pass through.

    Raises:
      Preempted: after `should_stop` returned True and the state was saved.
      ValueError: if a device runs out of memory, if a replica has fewer training clips than one batch, if a
        warm start, the file of a fold, an existing log or a field of the config is invalid, if the saved
        group is damaged, if a record is damaged, lacks a field of the batch or does not match prep.json, if
        no training or validation clip of a replica has a label, or if the fusion returns an invalid state.
      TypeError, AttributeError: if a field in the metadata of the saved group is damaged.
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite (a ValueError); then
        `nonfinite.json` in `workdir` lists the clips of the step, if it can be repeated.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
        exists.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
    """
    groups, epochs = packing.groups, config.train.epochs
    progress_line = show_progress(
        epochs * len(groups), packing.clips_per_epoch, config.name, active=is_first_process()
    )
    with progress_line as show_epochs:
        for group_number, group_replica_ids in enumerate(groups):
            if not broadcast_decision(
                all(os.path.exists(get_result_path(workdir, replica_id)) for replica_id in group_replica_ids)
            ):
                group, progress = train_replicas(
                    functools.partial(packing.make_group, group_replica_ids),
                    workdir,
                    report_progress=functools.partial(_report_epoch, show_epochs, group_number * epochs),
                    should_stop=should_stop,
                )
                group.close(progress)
                write_results(group, progress, workdir)
            if should_stop():
                raise Preempted(
                    f"{workdir}: stopped by SIGTERM, saved {group_number + 1} of {len(groups)} replica"
                    " groups; run the same command to resume"
                )


def _report_epoch(
    show_epochs: ReportProgress, previous_epochs: int, progress: RunProgress, rows: Sequence[EpochScores]
) -> None:
    """Shows the number of finished epochs of all groups, at the start of an epoch and not within it.

    Args:
      show_epochs: called as `show_epochs(number)` to show it.
      previous_epochs: number of epochs of the groups before this one.
      progress: number of finished epochs (`finished_epochs`) and of steps since then (`epoch_step`).
      rows: scores of the epoch; not used.
    """
    if progress.epoch_step == 0:
        show_epochs(previous_epochs + progress.finished_epochs)
