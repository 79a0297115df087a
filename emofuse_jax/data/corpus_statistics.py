"""What a prepared directory holds, measured: lengths, loudness, faces found, and crops to look at."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.records import Record, read_manifest
from emofuse_jax.data.spectrogram_units import DECIBELS, neper

SHEET_CLIPS = 24
"""Clips on a contact sheet."""
SHEET_CROPS = 4
"""Crops of each, even over the clip."""


@dataclasses.dataclass(frozen=True)
class Look:
    """A clip on a contact sheet."""

    clip_id: str
    share: float
    crops: UInt8[np.ndarray, "n h w 3"]
    """Zero where no face was found."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """Numbers of a prepared directory, a row for each clip that has a record."""

    prep: dict
    manifest: list[dict]
    seconds: Float[np.ndarray, " n"]
    """Of sound; NaN without."""
    loudness: Float[np.ndarray, " n"]
    """Decibels of the mean energy of the spectrogram, in its own unit; NaN without sound."""
    found: Float[np.ndarray, " n"]
    """Share of the sampled frames with a face."""
    even: list[Look]
    """Clips even over the corpus."""
    worst: list[Look]
    """Those with the smallest share of faces, above none."""

    @property
    def stored(self) -> list[dict]:
        """Rows of the manifest that have a record, in its order."""
        return [row for row in self.manifest if row["status"] != "failed"]


def measure(path: str) -> Quality:
    """Reads every record of a directory once."""
    dataset = open_dataset(path)
    manifest = read_manifest(path)
    count = len(dataset.clip_ids)
    chosen = set(np.linspace(0, count - 1, min(count, SHEET_CLIPS)).round().astype(int).tolist())
    rows, even, worst = [], [], []
    for i in range(count):
        record = dataset.read(i)
        share = float(record.face_valid.mean())
        if i in chosen:
            even.append(_look(record, share))
        if 0 < share < 1 and (len(worst) < SHEET_CLIPS or share < worst[-1].share):
            worst = sorted([*worst, _look(record, share)], key=lambda look: look.share)[:SHEET_CLIPS]
        rows.append((*_sound(record, dataset.prep["settings"]), share))
    seconds, loudness, found = np.array(rows, float).reshape(-1, 3).T
    return Quality(dataset.prep, manifest, seconds, loudness, found, even, worst)


def by_group(quality: Quality, column: str) -> dict[str, tuple[int, float]]:
    """Clips, and mean share of frames with a face, by a column of the manifest; classes by name."""
    groups: dict[str, list[float]] = {}
    for row, share in zip(quality.stored, quality.found, strict=True):
        groups.setdefault(_named(quality.prep, column, row[column]), []).append(share)
    return {name: (len(shares), float(np.mean(shares))) for name, shares in sorted(groups.items())}


def _named(prep: dict, column: str, value: str) -> str:
    if column != "label":
        return value
    return prep["classes"][int(value)] if int(value) >= 0 else "no label"


def _look(record: Record, share: float) -> Look:
    at = np.linspace(0, len(record.faces) - 1, min(len(record.faces), SHEET_CROPS)).round().astype(int)
    return Look(record.clip_id, share, record.faces[at].copy())


def _sound(record: Record, settings: dict) -> tuple[float, float]:
    """Seconds and decibels of a record's spectrogram."""
    if not record.audio_ok or not len(record.spectrogram):
        return math.nan, math.nan
    bels = record.spectrogram.astype(np.float32) * np.float32(DECIBELS / neper(settings["recipe"]) / 10)
    level = 10 * math.log10(np.mean(10**bels, dtype=np.float64))
    return len(record.spectrogram) * settings["audio"]["hop_ms"] / 1000, level
