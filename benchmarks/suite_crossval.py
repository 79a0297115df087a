"""Suite `crossval`: trains all folds and seeds of a protocol at once; the peer is a PyTorch loop."""

import functools
import os
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.suite_speed import allow_tf32, make_timer, torch_device
from benchmarks.timing import make_row, measure_medians
from emofuse_jax import settings
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.crossval import make_context
from emofuse_jax.training.crossval.replica_groups import split_into_groups
from emofuse_jax.training.crossval.replica_packing import choose_group_size
from emofuse_jax.training.crossval.stacked_replicas import StackedReplicas
from emofuse_jax.training.engine import evaluate_epoch
from emofuse_jax.training.experiment import open_experiment, with_fold_and_seed

FUNCTIONAL_SIZES = {"steps": 6, "audio": 88, "frames": 6, "face": 128}
"""Feature sizes of a clip: audio functionals of half a second, and a small face network."""
EMBEDDING_SIZES = {"steps": 50, "audio": 768, "frames": 16, "face": 512}
"""Feature sizes of a clip from two pre-trained encoders."""
CASES = {
    "demo:features on 6 sounds of 88, 6 faces of 128": (
        functools.partial(settings.small, "features"),
        FUNCTIONAL_SIZES,
    ),
    "features on 6 sounds of 88, 6 faces of 128": (settings.with_features, FUNCTIONAL_SIZES),
    "features on 50 sounds of 768, 16 faces of 512": (settings.with_features, EMBEDDING_SIZES),
}
"""Function that makes the config, and feature sizes, by the name of the case."""
RAVDESS_SIZES = {"clips": 1440, "speakers": 24, "folds": 6, "classes": 8}
"""Sizes of the corpus RAVDESS."""


def measure_crossval(
    workdir: str,
    *,
    with_torch: bool,
    repeats: int,
    seeds: int = 5,
    cases: dict = CASES,
    corpus_sizes: dict = RAVDESS_SIZES,
    dtype: str = "float32",
) -> Iterator[dict]:
    """Yields a row per case: training clips per second, in epochs that include the validation.

    emofuse trains all folds and seeds; of the PyTorch loop only one replica is measured, because its replicas
    run one after the other at the same rate.

    Args:
      workdir: Directory for the synthetic records, which later calls use again.
      with_torch: True: measure the peer too.
      repeats: Number of timed epochs; the median is reported.
      seeds: Number of seeds of each fold.
      cases: See CASES.
      corpus_sizes: Sizes of the corpus, fields of `CorpusSpec`.
      dtype: dtype of the activations, "float32" or "bfloat16". On a GPU, the peer is compiled.
    """
    from benchmarks.feature_records import CorpusSpec, write_features

    for name, (make_config, feature_sizes) in cases.items():
        corpus_spec = CorpusSpec(**corpus_sizes, **feature_sizes)
        path = os.path.join(workdir, "features", "_".join(map(str, feature_sizes.values())))
        if not os.path.isdir(path):
            write_features(path, corpus_spec)
        config = make_config()
        config.model.dtype = dtype
        config.data.update(path=path, audio_steps=2 * corpus_spec.steps)
        config.augment.frames = 0
        base_experiment = open_experiment(config)
        context = make_context(
            {
                (fold, seed): with_fold_and_seed(base_experiment, fold, seed)
                for fold in range(corpus_spec.folds)
                for seed in range(seeds)
            }
        )
        timers = {"ours": make_timer(make_our_epoch(context, workdir))}
        if with_torch:
            timers["peer"] = make_timer(make_peer_epoch(context))
        median_seconds = measure_medians(timers, repeats)
        our_rate = count_clips(context, list(context.experiments)) / median_seconds["ours"]
        peer_rate = (
            count_clips(context, [next(iter(context.experiments))]) / median_seconds["peer"]
            if with_torch
            else None
        )
        suffix = "" if dtype == "float32" else f", {dtype}"
        case = f"{corpus_spec.folds} folds x {seeds} seeds, {name}{suffix}"
        yield make_row(case, "clips/s", our_rate, peer_rate, peer_name="PyTorch loop", repeats=repeats)


def count_clips(context: CrossvalContext, replica_ids: list) -> int:
    """Returns the number of training clips in all batches of one epoch of these replicas."""
    return (
        sum(context.count_epoch_steps(replica_id) for replica_id in replica_ids)
        * context.config.data.batch_size
    )


def make_our_epoch(context: CrossvalContext, workdir: str):
    """Returns a function that trains and validates every replica for one epoch, one group after the other."""
    missing_directory = os.path.join(workdir, "none")
    groups = [
        StackedReplicas(context, replica_ids, missing_directory)
        for replica_ids in split_into_groups(
            list(context.experiments), choose_group_size(context), context.mesh.size
        )
    ]
    progress_by_group = [group.restore_or_init() for group in groups]

    def epoch():
        for group, progress in zip(groups, progress_by_group, strict=True):
            active = [True] * len(group.replica_ids)
            for _ in range(0, context.max_epoch_steps, group.steps_per_call):
                sums, _ = group.train_steps(progress, active, group.steps_per_call)
                progress.add(sums, group.steps_per_call)
            _, is_best = evaluate_epoch(group, progress, active)
            group.keep_best(progress, is_best)

    return epoch


def make_peer_epoch(context: CrossvalContext):
    """Returns a function that trains and validates the first replica for one epoch in PyTorch."""
    from benchmarks.peers.crossval_loop import Replica

    allow_tf32()
    replica_id, experiment = next(iter(context.experiments.items()))
    host_data = jax.tree.map(np.asarray, context.data)
    split_indices = [
        np.searchsorted(context.clips, experiment.clips[split]) for split in ("train", "validation")
    ]
    replica = Replica(
        (host_data.audio_features, host_data.face_features, host_data.label),
        *split_indices,
        classes=experiment.spec.classes,
        widths={
            "embedding": context.config.model.audio.embedding,
            "hidden": context.config.model.audio.attention_width,
        },
        batch_size=context.config.data.batch_size,
        learning_rate=context.config.optimizer.learning_rate,
        steps=context.config.train.epochs * context.count_epoch_steps(replica_id),
        device=torch_device(),
        dtype=context.config.model.dtype,
    )
    return replica.epoch
