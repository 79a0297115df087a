"""The suite `crossval`: all folds and seeds of a protocol at once, against a PyTorch loop over them."""

import functools
import os
from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.suite_speed import device, timed
from benchmarks.timing import medians, row
from emofuse_jax import settings
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.crossval import make_context, split_into_groups
from emofuse_jax.training.crossval.group_state import restore_or_init
from emofuse_jax.training.crossval.replica_group import train_and_validate
from emofuse_jax.training.crossval.replica_packing import choose_group_size
from emofuse_jax.training.experiment import open_experiment, with_fold_and_seed

FUNCTIONALS = {"steps": 6, "audio": 88, "frames": 6, "face": 128}
"""Sizes of features a clip: functionals of half a second, a small face network."""
EMBEDDINGS = {"steps": 50, "audio": 768, "frames": 16, "face": 512}
"""Of two pre-trained encoders."""
CASES = {
    "demo:features on 6 sounds of 88, 6 faces of 128": (
        functools.partial(settings.small, "features"),
        FUNCTIONALS,
    ),
    "features on 6 sounds of 88, 6 faces of 128": (settings.with_features, FUNCTIONALS),
    "features on 50 sounds of 768, 16 faces of 512": (settings.with_features, EMBEDDINGS),
}
"""Shipped configs, and what they train on."""
CORPUS = {"clips": 1440, "speakers": 24, "folds": 6, "classes": 8}
"""RAVDESS's."""


def crossval(
    workdir: str, *, torch: bool, repeats: int, seeds: int = 5, cases: dict = CASES, corpus: dict = CORPUS
) -> Iterator[dict]:
    """Clips that are trained on a second, epochs with their validation; ours of all runs, theirs of one.

    The loop's runs follow each other, so that one run's rate is that of all.
    """
    from benchmarks.feature_records import Made, write_features

    for name, (make_config, size) in cases.items():
        made = Made(**corpus, **size)
        path = os.path.join(workdir, "features", "_".join(map(str, size.values())))
        if not os.path.isdir(path):
            write_features(path, made)
        config = make_config()
        config.data.update(path=path, audio_steps=2 * made.steps)
        config.augment.frames = 0
        base = open_experiment(config)
        job = make_context(
            {(f, s): with_fold_and_seed(base, f, s) for f in range(made.folds) for s in range(seeds)}
        )
        sides = {"ours": timed(our_epoch(job, workdir))}
        if torch:
            sides["peer"] = timed(peer_epoch(job))
        taken = medians(sides, repeats)
        ours = clips_of(job, list(job.experiments)) / taken["ours"]
        theirs = clips_of(job, [next(iter(job.experiments))]) / taken["peer"] if torch else None
        case = f"{made.folds} folds x {seeds} seeds, {name}"
        yield row(case, "clips/s", ours, theirs, peer_name="PyTorch loop", repeats=repeats)


def clips_of(job: CrossvalContext, runs: list) -> int:
    """In whole batches of an epoch of these runs."""
    return sum(job.epoch_steps(run) for run in runs) * job.config.data.batch_size


def our_epoch(job: CrossvalContext, workdir: str):
    """An epoch of every replica, and its validation, chunk after chunk."""
    none = os.path.join(workdir, "none")
    chunks = [
        restore_or_init(job, runs, none)
        for runs in split_into_groups(job, list(job.experiments), choose_group_size(job))
    ]

    def epoch():
        for chunk in chunks:
            train_and_validate(job, chunk, [True] * len(chunk.replica_ids))

    return epoch


def peer_epoch(job: CrossvalContext):
    """The same of the first run, in PyTorch."""
    from benchmarks.peers.crossval_loop import Replica

    run, experiment = next(iter(job.experiments.items()))
    host = jax.tree.map(np.asarray, job.data)
    parts = [np.searchsorted(job.clips, experiment.clips[part]) for part in ("train", "validation")]
    replica = Replica(
        (host.audio_features, host.face_features, host.label),
        *parts,
        classes=experiment.spec.classes,
        widths={
            "embedding": job.config.model.audio.embedding,
            "hidden": job.config.model.audio.attention_width,
        },
        batch_size=job.config.data.batch_size,
        learning_rate=job.config.optimizer.learning_rate,
        steps=job.config.train.epochs * job.epoch_steps(run),
        device=device(),
    )
    return replica.epoch
