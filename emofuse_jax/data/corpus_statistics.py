"""What a prepared directory holds, measured: lengths, loudness, faces found, and crops to look at."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.records import Record, read_manifest
from emofuse_jax.data.spectrogram_units import DECIBELS_PER_NEPER, units_per_neper

MAX_SHEET_CLIPS = 24
"""Clips on a contact sheet."""
CROPS_PER_SHEET_CLIP = 4
"""Crops of each, even over the clip."""


@dataclasses.dataclass(frozen=True)
class SheetClip:
    """A clip on a contact sheet."""

    clip_id: str
    face_fraction: float
    crops: UInt8[np.ndarray, "n h w 3"]
    """Zero where no face was found."""


@dataclasses.dataclass(frozen=True)
class CorpusQuality:
    """Numbers of a prepared directory, a row for each clip that has a record."""

    prep: dict
    manifest: list[dict]
    audio_seconds: Float[np.ndarray, " n"]
    """Of sound; NaN without."""
    loudness_db: Float[np.ndarray, " n"]
    """Decibels of the mean energy of the spectrogram, in its own unit; NaN without sound."""
    face_fractions: Float[np.ndarray, " n"]
    """Share of the sampled frames with a face."""
    sample_clips: list[SheetClip]
    """Clips even over the corpus."""
    worst_clips: list[SheetClip]
    """Those with the smallest share of faces, above none."""

    @property
    def stored_rows(self) -> list[dict]:
        """Rows of the manifest that have a record, in its order."""
        return [row for row in self.manifest if row["status"] != "failed"]


def measure_quality(path: str) -> CorpusQuality:
    """Reads every record of a directory once."""
    dataset = open_dataset(path)
    manifest = read_manifest(path)
    count = len(dataset.clip_ids)
    sample_indices = set(np.linspace(0, count - 1, min(count, MAX_SHEET_CLIPS)).round().astype(int).tolist())
    rows, sample_clips, worst_clips = [], [], []
    for i in range(count):
        record = dataset.read(i)
        face_fraction = float(record.face_valid.mean())
        if i in sample_indices:
            sample_clips.append(_make_sheet_clip(record, face_fraction))
        if 0 < face_fraction < 1 and (
            len(worst_clips) < MAX_SHEET_CLIPS or face_fraction < worst_clips[-1].face_fraction
        ):
            worst_clips = sorted(
                [*worst_clips, _make_sheet_clip(record, face_fraction)],
                key=lambda sheet_clip: sheet_clip.face_fraction,
            )[:MAX_SHEET_CLIPS]
        rows.append((*_measure_audio(record, dataset.prep["settings"]), face_fraction))
    seconds, loudness, face_fractions = np.array(rows, float).reshape(-1, 3).T
    return CorpusQuality(dataset.prep, manifest, seconds, loudness, face_fractions, sample_clips, worst_clips)


def face_fraction_by_group(quality: CorpusQuality, column: str) -> dict[str, tuple[int, float]]:
    """Clips, and mean share of frames with a face, by a column of the manifest; classes by name."""
    groups: dict[str, list[float]] = {}
    for row, face_fraction in zip(quality.stored_rows, quality.face_fractions, strict=True):
        groups.setdefault(_group_name(quality.prep, column, row[column]), []).append(face_fraction)
    return {
        name: (len(face_fractions), float(np.mean(face_fractions)))
        for name, face_fractions in sorted(groups.items())
    }


def _group_name(prep: dict, column: str, value: str) -> str:
    if column != "label":
        return value
    return prep["classes"][int(value)] if int(value) >= 0 else "no label"


def _make_sheet_clip(record: Record, face_fraction: float) -> SheetClip:
    crop_indices = (
        np.linspace(0, len(record.faces) - 1, min(len(record.faces), CROPS_PER_SHEET_CLIP))
        .round()
        .astype(int)
    )
    return SheetClip(record.clip_id, face_fraction, record.faces[crop_indices].copy())


def _measure_audio(record: Record, settings: dict) -> tuple[float, float]:
    """Seconds and decibels of a record's spectrogram."""
    if not record.audio_ok or not len(record.spectrogram):
        return math.nan, math.nan
    bels = record.spectrogram.astype(np.float32) * np.float32(
        DECIBELS_PER_NEPER / units_per_neper(settings["recipe"]) / 10
    )
    level_db = 10 * math.log10(np.mean(10**bels, dtype=np.float64))
    return len(record.spectrogram) * settings["audio"]["hop_ms"] / 1000, level_db
