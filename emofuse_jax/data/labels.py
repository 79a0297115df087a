"""Reads labels from the manifest and hides the labels of some training clips (semi-supervised learning)."""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.records import read_manifest
from emofuse_jax.types import Batch


def clip_labels(dataset: Dataset, clips: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns the label of each record index from manifest.csv, without reading records; -1: unlabelled.

    `clips` are record indices; a label is an index into the classes.

    Raises:
      OSError: manifest.csv is missing or cannot be read.
      ValueError: manifest.csv is not a CSV file in UTF-8 or lacks a column, a label or index is not an
        integer, or a clip has no row in it.
    """
    rows = read_manifest(dataset.path)
    label_of_record = {int(row["index"]): int(row["label"]) for row in rows if int(row["index"]) >= 0}
    try:
        return np.array([label_of_record[clip] for clip in clips.tolist()], np.int64)
    except KeyError as error:
        raise ValueError(
            f"{os.path.join(dataset.path, 'manifest.csv')}: no row with index {error};"
            " prepare the clips again"
        ) from None


def visible_labels(
    dataset: Dataset, clips: Int[np.ndarray, " n"], *, fraction: float, seed: int
) -> Int[np.ndarray, " n"]:
    """Returns, for each clip, the label that training may use; -1 if the clip has none or it is hidden.

    Args:
      dataset: The records.
      clips: Record indices of the training clips.
      fraction: Fraction of each class's clips that keep their label, `config.data.labelled_fraction`.
      seed: Seed of the selection.

    Raises:
      ValueError: The fraction is not in (0, 1], no clip has a label, or manifest.csv is not a CSV file in
        UTF-8, lacks a column or the row of a clip, or has a label or index that is not an integer.
      OSError: manifest.csv is missing or cannot be read.
    """
    labels = clip_labels(dataset, clips)
    if not np.any(labels >= 0):
        raise ValueError(
            f"{dataset.path}: none of the {len(clips)} training clips has a label; choose another fold, or"
            " records with labels"
        )
    clip_ids = [dataset.clip_ids[clip] for clip in clips]
    return np.where(choose_labelled(labels, clip_ids, fraction=fraction, seed=seed), labels, -1)


def choose_labelled(
    labels: Int[np.ndarray, " n"], clip_ids: list[str], *, fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Returns True for the clips that keep their label: `fraction` of each class, rounded, at least one.

    `labels` are indices of classes, -1 if unlabelled, and `clip_ids` the names of the same n clips. In each
    class the function selects the clips with the lowest hash of seed and clip_id. So the selection does not
    depend on the order of the clips or on speakers, a larger fraction includes the clips of a smaller one,
    and all configs with the same seed select the same clips. Unlabelled clips get False.

    Raises:
      ValueError: The fraction is not in (0, 1].
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
    """Returns a copy of the batch with label -1 and a False label mask in the rows of `hidden_label_clips`.

    `hidden_label_clips` are record indices; other rows and fields do not change.
    """
    is_hidden = np.isin(batch.clip, hidden_label_clips)
    # NumPy arrays, as in `empty_batch`
    fields: dict[str, Any] = {
        "label": np.where(is_hidden, -1, batch.label).astype(batch.label.dtype),
        "label_mask": batch.label_mask & ~is_hidden,
    }
    return dataclasses.replace(batch, **fields)
