"""Measures the clips of a prepared directory: durations, loudness, fraction of frames with a face, crops."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.metadata import ManifestStrings, PrepMetadata, PrepSettingsDict
from emofuse_jax.data.records import Record, read_manifest
from emofuse_jax.data.spectrogram_units import DECIBELS_PER_NEPER, units_per_neper

MAX_SHEET_CLIPS = 24
"""Largest number of clips on a contact sheet."""
CROPS_PER_SHEET_CLIP = 4
"""Number of face crops per clip on a contact sheet, evenly spaced in time."""


@dataclasses.dataclass(frozen=True)
class SheetClip:
    """One clip on a contact sheet."""

    clip_id: str
    face_fraction: float
    """Fraction of the sampled frames with a face, 0 to 1."""
    crops: UInt8[np.ndarray, "n h w 3"]
    """Face crops; all zeros if no face was detected."""


@dataclasses.dataclass(frozen=True)
class CorpusQuality:
    """Measurements of a prepared directory; arrays have one entry for each clip that has a record."""

    prep: PrepMetadata
    """Content of prep.json."""
    manifest: list[ManifestStrings]
    """All rows of manifest.csv."""
    audio_seconds: Float[np.ndarray, " n"]
    """Duration of the audio in seconds; NaN without audio."""
    loudness_db: Float[np.ndarray, " n"]
    """Level of the spectrogram's mean energy in decibels, without a reference level; NaN without audio."""
    face_fractions: Float[np.ndarray, " n"]
    """Fraction of the sampled frames with a face, 0 to 1."""
    sample_clips: list[SheetClip]
    """At most MAX_SHEET_CLIPS clips, evenly spaced over the corpus."""
    worst_clips: list[SheetClip]
    """At most MAX_SHEET_CLIPS clips with the smallest face fraction above 0 and below 1, smallest first."""

    @property
    def stored_rows(self) -> list[ManifestStrings]:
        """Rows of the manifest whose clip has a record, in the order of the manifest."""
        return [row for row in self.manifest if row["status"] != "failed"]


def measure_quality(path: str) -> CorpusQuality:
    """Reads every record of a prepared directory and returns its measurements.

    Returns:
      `prep`, the content of prep.json; `manifest`, the rows of manifest.csv as dicts of strings; arrays with
      one value for each record, in the order of the record indices: `audio_seconds`; `loudness_db`, the level
      of the mean energy without a reference level (both NaN without a spectrogram); and `face_fractions` (0
      to 1); `sample_clips`, at most 24 clips evenly spaced over the corpus; `worst_clips`, at most 24 clips
      with the smallest face fraction above 0 and below 1, smallest first. Each of these clips has `clip_id`,
      `face_fraction` and `crops`, at most 4 face crops, uint8 [n h w 3].

    Raises:
      DamagedRecordError: A record is damaged; names its file.
      FileNotFoundError: prep.json, manifest.csv or a shard is missing.
      OSError: One of these files cannot be read.
      ValueError: prep.json or manifest.csv is not valid, the records have another schema or an unknown
        recipe, or the shards do not match prep.json and manifest.csv (their number, their names or the number
        of records).
    """
    dataset = open_dataset(path)
    manifest = read_manifest(path)
    count = len(dataset.clip_ids)
    sample_indices = set(np.linspace(0, count - 1, min(count, MAX_SHEET_CLIPS)).round().astype(int).tolist())
    rows: list[tuple[float, float, float]] = []
    sample_clips: list[SheetClip] = []
    worst_clips: list[SheetClip] = []
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
    """Returns (number of clips, mean fraction of frames with a face) for each value of a manifest column.

    Only clips with a record count. Keys are sorted. For the column `label` they are class names, or "no
    label" for unlabelled clips.

    Raises:
      KeyError: The manifest has no such column.
      ValueError: A label is not an integer or is larger than the index of the last class, or the manifest
        does not have one row for each record.
    """
    groups: dict[str, list[float]] = {}
    for row, face_fraction in zip(quality.stored_rows, quality.face_fractions, strict=True):
        groups.setdefault(_group_name(quality.prep, column, row[column]), []).append(face_fraction)
    return {
        name: (len(face_fractions), float(np.mean(face_fractions)))
        for name, face_fractions in sorted(groups.items())
    }


def _group_name(prep: PrepMetadata, column: str, value: str) -> str:
    if column != "label":
        return value
    label, classes = int(value), prep["classes"]
    if label >= len(classes):
        raise ValueError(
            f"manifest.csv of {prep['corpus']}: label {label}, expected -1 to {len(classes) - 1}; prepare the"
            " clips again"
        )
    return classes[label] if label >= 0 else "no label"


def _make_sheet_clip(record: Record, face_fraction: float) -> SheetClip:
    crop_indices = (
        np.linspace(0, len(record.faces) - 1, min(len(record.faces), CROPS_PER_SHEET_CLIP))
        .round()
        .astype(int)
    )
    return SheetClip(record.clip_id, face_fraction, record.faces[crop_indices].copy())


def _measure_audio(record: Record, settings: PrepSettingsDict) -> tuple[float, float]:
    """Returns `(seconds, level_db)` of a record's spectrogram, or `(nan, nan)` without audio or spectrogram.

    `level_db` is the level of the mean energy in decibels, without a reference level. `settings` are those of
    prep.json. Raises ValueError if the recipe is unknown.
    """
    if not record.audio_ok or not len(record.spectrogram):
        return math.nan, math.nan
    bels = record.spectrogram.astype(np.float32) * np.float32(
        DECIBELS_PER_NEPER / units_per_neper(settings["recipe"]) / 10
    )
    level_db = 10 * math.log10(np.mean(10**bels, dtype=np.float64))
    return len(record.spectrogram) * settings["audio"]["hop_ms"] / 1000, level_db
