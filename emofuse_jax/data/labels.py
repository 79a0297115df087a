"""Which training clips show their label: those of the corpus, or a seeded share of each class."""

import dataclasses
import hashlib
import os

import numpy as np
from jaxtyping import Bool, Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.records import read_manifest
from emofuse_jax.types import Batch


def clip_labels(dataset: Dataset, clips: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Label of each clip by manifest.csv, without reading a record; -1 is unlabelled."""
    manifest_path = os.path.join(dataset.path, "manifest.csv")
    rows = read_manifest(dataset.path)
    if rows and "label" not in rows[0]:
        raise ValueError(f"{manifest_path}: no column label; run emofuse prepare again")
    label_of_record = {int(row["index"]): int(row["label"]) for row in rows if int(row["index"]) >= 0}
    return np.array([label_of_record[int(clip)] for clip in clips], np.int64)


def visible_labels(
    dataset: Dataset, clips: Int[np.ndarray, " n"], *, fraction: float, seed: int
) -> Int[np.ndarray, " n"]:
    """The label that training sees of each clip: -1 where the corpus has none or it is hidden.

    Args:
      dataset: the records.
      clips: record indices of the training part.
      fraction: share of each class's clips that keep their label, `config.data.labelled_fraction`.
      seed: of the choice.

    Raises:
      ValueError: a fraction outside (0, 1], or no labelled clip at all.
    """
    labels = clip_labels(dataset, clips)
    if not np.any(labels >= 0):
        raise ValueError(f"{dataset.path}: none of the {len(clips)} training clips has a label")
    clip_ids = [dataset.clip_ids[clip] for clip in clips]
    return np.where(choose_labelled(labels, clip_ids, fraction=fraction, seed=seed), labels, -1)


def choose_labelled(
    labels: Int[np.ndarray, " n"], clip_ids: list[str], *, fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """True for the clips that keep their label: `fraction` of each class, rounded, and at least one.

    Of a class, the clips whose hashes of seed and name are lowest: the choice depends on neither order nor
    speaker, a larger fraction keeps the clips of a smaller one, and two configs with one seed agree.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"data.labelled_fraction={fraction}: expected a number above 0 and at most 1")
    keeps_label = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        ranked = sorted(members, key=lambda i: hashlib.sha256(f"{seed}/{clip_ids[i]}".encode()).digest())
        keeps_label[ranked[: max(1, round(fraction * len(members)))]] = True
    return keeps_label


def hide_labels(batch: Batch, hidden_label_clips: Int[np.ndarray, " n"]) -> Batch:
    """The batch with label -1, masked, on the rows of the `hidden_label_clips` clips."""
    is_hidden = np.isin(batch.clip, hidden_label_clips)
    label = np.where(is_hidden, -1, batch.label).astype(batch.label.dtype)
    return dataclasses.replace(batch, label=label, label_mask=batch.label_mask & ~is_hidden)
