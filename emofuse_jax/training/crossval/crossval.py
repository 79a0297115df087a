"""All folds and seeds of a protocol: the corpus lies on the devices once, the replicas run side by side.

A replica is `emofuse train` of its fold and seed, to rounding. Replicas are trained in groups that fit the
devices' memory; a finished group leaves each replica's best checkpoint, history and result. Started again, a
run goes on after the last finished group, from what was saved last; SIGTERM saves within an epoch.
"""

import functools
import json
import os
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from emofuse_jax.data.dataset import Dataset, list_folds, read_split_leaks
from emofuse_jax.data.resident import load_resident
from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import broadcast_decision, put_with_sharding, replica_mesh, replicated, to_host
from emofuse_jax.parallel.preemption import Preempted, watch_preemption
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.training import progress
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.crossval.context import CrossvalContext, ReplicaId
from emofuse_jax.training.crossval.group_state import ReplicaGroup, remove_group_checkpoint
from emofuse_jax.training.crossval.replica_group import predict_part, train_replica_group
from emofuse_jax.training.crossval.replica_packing import (
    choose_group_size,
    estimate_device_bytes,
    should_vmap,
)
from emofuse_jax.training.crossval.replicas import jit_over_replicas, make_predict_batches, make_train_steps
from emofuse_jax.training.crossval.saved_results import read_replica_result, read_saved_plan
from emofuse_jax.training.experiment import (
    Experiment,
    check_same_config,
    check_test_speakers_unseen,
    count_epoch_steps,
    make_metadata,
    open_experiment,
    with_fold_and_seed,
)
from emofuse_jax.training.loop import skip_data_description
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.types import Params
from emofuse_jax.utils.files import write_json

CROSSVAL_MEMORY_HINT = "choose another --workdir, and lower config.data.batch_size or config.crossval.memory"
PLAN_FIELD_NAMES = {"runs": "folds or seeds", "trials": "trials"}
"""Parts of a plan beside the config, in words."""


def crossval(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    seeds: int,
    folds: list[int] | None = None,
    describe_data: Callable[[str, Dataset], None] = skip_data_description,
) -> dict:
    """Trains and tests every fold with seeds `config.seed` to `config.seed + seeds - 1`.

    Writes `runs/fold_<i>_seed_<j>/` under `workdir`: `checkpoints/best`, `metrics.jsonl`,
    `result.json`. The test part of a fold is scored once, with the parameters that its
    validation part chose, or the last ones where no clips are held out.

    Args:
      config: an experiment; `data.fold` and `mesh` are not used.
      workdir: to write to, and to go on from.
      seeds: how many.
      folds: which; all of the protocol by default.
      describe_data: called with the directory of each finished replica and the dataset.

    Raises:
      ValueError: buckets, no test clips in a fold, a test speaker that was trained on, another config than
        that of `workdir`, another process at work there, a replica that does not fit a device, or one whose
        loss is not a number any more: `nonfinite.json` then names the step's clips.
    """
    base_experiment = open_experiment(config)
    folds = list_folds(base_experiment.dataset, base_experiment.protocol) if folds is None else folds
    replica_ids = [(fold, config.seed + seed) for fold in folds for seed in range(seeds)]
    experiments = {replica_id: with_fold_and_seed(base_experiment, *replica_id) for replica_id in replica_ids}
    for experiment in experiments.values():
        check_fold(experiment)
    plan = read_or_make_plan(workdir, base_experiment.config, replica_ids)
    with (
        exclusive_workdir(workdir),
        explain_oom(hint=CROSSVAL_MEMORY_HINT),
        watch_preemption() as should_stop,
    ):
        context = make_context(experiments)
        group_size = plan.get("replicas") or choose_group_size(context)
        if is_first_process():
            write_json(os.path.join(workdir, "crossval.json"), plan | {"replicas": group_size})
        write_results = functools.partial(write_group_results, describe_data=describe_data)
        train_replica_groups(
            context,
            replica_ids,
            group_size,
            workdir,
            should_stop,
            get_result_path=replica_result_path,
            write_results=write_results,
        )
        remove_group_checkpoint(workdir)
    leaks = {
        leak
        for e in experiments.values()
        for leak in read_split_leaks(e.dataset, e.protocol, e.config.data.fold)
    }
    return make_crossval_results(
        read_replica_results(context, workdir),
        base_experiment.config,
        base_experiment.dataset,
        base_experiment.protocol,
        sorted(leaks),
    )


def check_fold(experiment: Experiment) -> None:
    """ValueError where a fold has nothing to test on, no whole batch to train on, or a speaker in both."""
    if not len(experiment.clips["test"]):
        fold_name = f"{experiment.protocol}, fold {experiment.config.data.fold}"
        raise ValueError(f"{experiment.dataset.path}: {fold_name}: test is empty")
    count_epoch_steps(experiment)
    check_test_speakers_unseen(experiment, make_metadata(experiment))


def read_or_make_plan(
    workdir: str, config: ml_collections.ConfigDict, replica_ids: list[ReplicaId], **extra_fields
) -> dict:
    """What `workdir` was begun with, or begins with; ValueError where it holds another cross-validation."""
    path = os.path.join(workdir, "crossval.json")
    new_plan = {
        "config": config.to_dict(),
        "runs": [list(replica_id) for replica_id in replica_ids],
        **extra_fields,
    }
    if not os.path.exists(path):
        return new_plan
    plan = read_saved_plan(path)
    check_same_config(workdir, saved_config(plan).to_dict(), json.loads(json.dumps(new_plan["config"])))
    for name in ("runs", *extra_fields):
        if plan.get(name) != new_plan[name]:
            raise ValueError(f"{workdir}: holds other {PLAN_FIELD_NAMES[name]}; choose another --workdir")
    return plan


def make_context(
    experiments: dict[ReplicaId, Experiment], varying_fields: tuple[str, ...] = ()
) -> CrossvalContext:
    """Loads the corpus onto the devices and makes the programs.

    `varying_fields`: fields of the config in which the replicas differ; the programs take them as arrays.
    Raises ValueError where the config asks for buckets, or to leave out damaged records.
    """
    first_experiment = next(iter(experiments.values()))
    if first_experiment.config.data.buckets != 1:
        raise ValueError(
            f"config.data.buckets={first_experiment.config.data.buckets}: resident clips all have one shape"
        )
    if first_experiment.config.data.on_corrupt != "stop":
        raise ValueError(
            f"config.data.on_corrupt={first_experiment.config.data.on_corrupt}: only emofuse train takes it"
        )
    device_count = (
        jax.device_count() if jax.process_count() > 1 else min(jax.device_count(), len(experiments))
    )
    mesh = replica_mesh(device_count)
    clip_lists = [clips for experiment in experiments.values() for clips in experiment.clips.values()]
    clips = np.unique(np.concatenate(clip_lists))
    host_data = load_resident(first_experiment.dataset, clips, first_experiment.spec)
    return CrossvalContext(
        experiments=experiments,
        mesh=mesh,
        clips=clips,
        data=put_with_sharding(host_data, replicated(mesh)),
        labels=host_data.label,
        is_vmapped=should_vmap(first_experiment.config.crossval.mode, first_experiment.model, host_data),
        train_steps=jit_over_replicas(
            make_train_steps(first_experiment.model, first_experiment.config), mesh, donate_argnums=(1,)
        ),
        predict_batches=jit_over_replicas(make_predict_batches(first_experiment.model), mesh),
        varying_fields=varying_fields,
    )


def split_into_groups(
    context: CrossvalContext, replica_ids: list[ReplicaId], group_size: int
) -> list[list[ReplicaId]]:
    """Splits runs into groups of `group_size`; one that does not fill the devices repeats its last run."""
    groups, device_count = (
        [replica_ids[start : start + group_size] for start in range(0, len(replica_ids), group_size)],
        context.mesh.size,
    )
    return [[*group, *group[-1:] * (-len(group) % device_count)] for group in groups]


def train_replica_groups(
    context: CrossvalContext,
    replica_ids: list[ReplicaId],
    group_size: int,
    workdir: str,
    should_stop: Callable[[], bool],
    *,
    get_result_path: Callable[[str, ReplicaId], str],
    write_results: Callable[[CrossvalContext, ReplicaGroup, str], None],
) -> None:
    """Trains the runs, `group_size` at a time, and writes what they reached; skips finished groups.

    Args:
      context, replica_ids: what to train.
      group_size: runs in a group.
      workdir: to save to, and to go on from.
      should_stop: of parallel/preemption.py; asked between calls of a program, and when a group is written.
      get_result_path: where, under `workdir`, the result of a run lies when it is whole.
      write_results: writes the results of a group's runs under `workdir`.
    """
    groups, epochs = split_into_groups(context, replica_ids, group_size), context.config.train.epochs
    clips_per_epoch = group_size * context.steps * context.config.data.batch_size
    progress_line = progress.show_progress(
        epochs * len(groups), 0, clips_per_epoch, context.config.name, active=is_first_process()
    )
    replicas_per_device = -(-group_size // context.mesh.size) if context.is_vmapped else 1
    with (
        progress_line as report_progress,
        explain_oom(lambda: estimate_device_bytes(context, replicas_per_device), CROSSVAL_MEMORY_HINT),
    ):
        for group_number, group_replica_ids in enumerate(groups):
            if not broadcast_decision(
                all(os.path.exists(get_result_path(workdir, replica_id)) for replica_id in group_replica_ids)
            ):
                group = train_replica_group(
                    context,
                    group_replica_ids,
                    workdir,
                    lambda current_group, n=group_number: report_progress(n * epochs + current_group.epochs),
                    should_stop,
                )
                write_results(context, group, workdir)
            if should_stop():
                raise Preempted(
                    f"{workdir}: saved, {group_number + 1} of {len(groups)} replica groups are done"
                )


def write_group_results(
    context: CrossvalContext,
    group: ReplicaGroup,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None],
) -> None:
    """Tests the replicas of a trained group and writes what they reached."""
    test_predictions, best_model = (
        predict_part(context, group.replica_ids, group.best_model, "test"),
        to_host(group.best_model),
    )
    for i, replica_id in enumerate(dict.fromkeys(group.replica_ids)):
        directory = replica_directory(workdir, replica_id)
        write_replica(context, group, i, jax.tree.map(lambda x, i=i: x[i], best_model), directory)
        if is_first_process():
            describe_data(directory, context.experiments[replica_id].dataset)
            write_json(
                replica_result_path(workdir, replica_id),
                make_replica_result(context, group, test_predictions, i),
            )


def write_replica(
    context: CrossvalContext, group: ReplicaGroup, i: int, model: tuple[Params, Params], directory: str
) -> None:
    """A replica's checkpoint and history."""
    experiment, tracker = context.experiments[group.replica_ids[i]], group.trackers[i]
    params, model_state = put_with_sharding(model, replicated(context.mesh))
    replica_metadata = make_metadata(experiment) | {
        "step": tracker.best_step,
        "temperature": tracker.temperature,
    }
    store.save_model(directory, params, model_state, replica_metadata)
    writer = MetricWriter(directory, resume_step=0, active=is_first_process())
    for row in group.histories[i]:
        writer.write(row["step"], "epoch", {name: value for name, value in row.items() if name != "step"})
    writer.close()


def make_replica_result(
    context: CrossvalContext, group: ReplicaGroup, test_predictions: dict, i: int
) -> dict:
    """What one replica reached on the test part of its fold, and every answer."""
    (fold, seed), experiment = group.replica_ids[i], context.experiments[group.replica_ids[i]]
    dataset, clips = experiment.dataset, experiment.clips["test"]
    clip_ids = [dataset.clip_ids[clip] for clip in clips]
    scores = metrics.compute_scores(test_predictions["confusion"][i])
    return {
        "fold": fold,
        "seed": seed,
        "validation": {"ua": group.trackers[i].best_ua},
        "test": {name: scores[name] for name in ("ua", "wa", "wf1")},
        "best_step": group.trackers[i].best_step,
        "temperature": group.trackers[i].temperature,
        "epochs": len(group.histories[i]),
        "clips": clip_ids,
        "speakers": [dataset.speaker_of[name] for name in clip_ids],
        "labels": context.labels[np.searchsorted(context.clips, clips)].tolist(),
        "probabilities": test_predictions["probabilities"][i, : len(clips)].tolist(),
    }


def read_replica_results(context: CrossvalContext, workdir: str) -> list[dict]:
    """The results of all runs, in their order."""
    num_classes = len(next(iter(context.experiments.values())).dataset.classes)
    return [
        read_replica_result(replica_result_path(workdir, replica_id), num_classes)
        for replica_id in context.experiments
    ]


def replica_directory(workdir: str, replica_id: ReplicaId) -> str:
    """Where the checkpoint and the history of a fold and seed lie."""
    return os.path.join(workdir, "runs", f"fold_{replica_id[0]}_seed_{replica_id[1]}")


def replica_result_path(workdir: str, replica_id: ReplicaId) -> str:
    """Where a run's result lies when it is whole."""
    return os.path.join(replica_directory(workdir, replica_id), "result.json")
