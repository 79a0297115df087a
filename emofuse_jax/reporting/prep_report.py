"""Writes `prep_report.html`, which shows what `emofuse prepare` found, for inspection before training."""

import collections
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from emofuse_jax.data.corpus_statistics import (
    CROPS_PER_SHEET_CLIP,
    CorpusQuality,
    SheetClip,
    face_fraction_by_group,
    measure_quality,
)
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.metadata import ManifestStrings
from emofuse_jax.reporting import page, text
from emofuse_jax.reporting.cards import DATA_CARD, make_data_card, write_card
from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.matplotlib_types import Figure
from emofuse_jax.scoring.result_marks import corpus_marks
from emofuse_jax.utils.files import write_atomic

PAGE_FILE_NAME = "prep_report.html"
MAX_GROUPS = 30
"""Maximum number of bars in a chart; if there are more groups, those with the fewest faces are drawn."""
MAX_TABLE_ROWS = 500
"""Maximum number of masked and failed clips in the table; manifest.csv lists all of them."""
SHEET_COLUMNS = 4
"""Number of clips per row of a contact sheet."""
_FIGURE_PATTERN = re.compile(r"(faces_by_\w+|lengths|loudness|contact_\w+)\.png")


def write_prep_report(path: str) -> str:
    """Reads all records of a folder and writes DATA_CARD.md and prep_report.html to it.

    The figures of the page are written to its subfolder `figures/`, where those of an earlier report are
    replaced. Without Matplotlib, only the card is written, and a line on stderr says so.

    Args:
      path: folder written by `emofuse prepare`.

    Returns:
      `<path>/prep_report.html`, or `<path>/DATA_CARD.md` if there is no page.

    Raises:
      DamagedRecordError: if a record is damaged (a ValueError).
      ValueError: if prep.json or manifest.csv is not valid, if a label in manifest.csv is not the index of a
        class, if the records have another schema or an unknown recipe, if the shards do not match these files
        (their number, their names or the number of records), or if there are no records.
      TypeError: if a note in prep.json is not a text.
      KeyError: if manifest.csv has masked or failed clips, but no column `reason`.
      OSError: if a file is missing, cannot be read or cannot be written.
    """
    write_card(path, DATA_CARD, make_data_card(open_dataset(path)))
    if not page.can_draw_figures(PAGE_FILE_NAME):
        return os.path.join(path, DATA_CARD)
    quality = measure_quality(path)
    marks = corpus_marks(quality.prep["corpus"])
    pictures = _make_pictures(quality, marks)
    incomplete_rows = [row for row in quality.manifest if row["status"] != "kept"]
    status_counts = collections.Counter(row["status"] for row in quality.manifest)
    html = page.render_html(
        "prep_report.html",
        title=f"{quality.prep['corpus']}: {len(quality.manifest)} clips prepared",
        marks=marks,
        facts=_list_facts(quality, status_counts),
        versions=quality.prep["versions"],
        pictures=pictures,
        classes=_group_rows(face_fraction_by_group(quality, "label")),
        speakers=_group_rows(face_fraction_by_group(quality, "speaker")),
        reasons=_count_reasons(incomplete_rows),
        bad=incomplete_rows[:MAX_TABLE_ROWS],
        more=max(0, len(incomplete_rows) - MAX_TABLE_ROWS),
        notes=quality.prep["notes"],
    )
    folder = pathlib.Path(path)
    page.write_figures(folder / "figures", list(pictures.values()), _FIGURE_PATTERN)
    write_atomic(folder / PAGE_FILE_NAME, html.encode())
    return os.path.join(path, PAGE_FILE_NAME)


def _list_facts(quality: CorpusQuality, status_counts: Mapping[str, int]) -> list[tuple[str, str]]:
    prep, seconds = quality.prep, quality.audio_seconds[np.isfinite(quality.audio_seconds)]
    face_percent = (
        text.format_percent(float(quality.face_fractions.mean())) if len(quality.face_fractions) else "-"
    )
    return [
        ("Recipe", prep["settings"]["recipe"]),
        ("Kept", str(status_counts["kept"])),
        ("Masked", str(status_counts["masked"])),
        ("Failed", str(status_counts["failed"])),
        ("Speakers", str(len(prep["speakers"]))),
        ("Classes", str(len(prep["classes"]))),
        ("Audio", f"{seconds.sum() / 3600:.2f} h"),
        ("Frames with a face", f"{face_percent} %"),
    ]


class GroupRow(TypedDict):
    """Clips of a class or speaker."""

    name: str
    clips: int
    faces: str
    """Share of the frames with a face in per cent."""


def _group_rows(groups: dict[str, tuple[int, float]]) -> list[GroupRow]:
    return [
        {"name": name, "clips": clip_count, "faces": text.format_percent(face_fraction)}
        for name, (clip_count, face_fraction) in groups.items()
    ]


def _count_reasons(incomplete_rows: Sequence[ManifestStrings]) -> list[tuple[str, str, int]]:
    """Returns tuples (status, reason, number of clips) of masked and failed clips, the most frequent first.

    `N` replaces each number in a reason, so that clips with the same problem are counted together. The rows
    are those of manifest.csv, dicts of texts, with the keys `status` and `reason`; of equally frequent
    reasons, the first in the rows comes first. Raises KeyError if a key is missing.
    """
    reason_counts = collections.Counter(
        (row["status"], re.sub(r"\d+(\.\d+)?", "N", row["reason"])) for row in incomplete_rows
    )
    return [(status, reason, count) for (status, reason), count in reason_counts.most_common()]


def _make_pictures(quality: CorpusQuality, marks: Sequence[str]) -> dict[str, style.Picture]:
    record_shape = quality.prep["shape"]
    pictures = [
        _make_bar_chart("faces_by_class", "class", face_fraction_by_group(quality, "label"), marks),
        _make_bar_chart("faces_by_speaker", "speaker", face_fraction_by_group(quality, "speaker"), marks),
        _make_histogram("lengths", "Duration of the audio", "seconds", quality.audio_seconds, marks),
        _make_histogram(
            "loudness",
            "Loudness",
            "dB, relative to the reference of the spectrogram",
            quality.loudness_db,
            marks,
        ),
    ]
    if record_shape["h"]:
        pictures += [
            _make_contact_sheet("contact_even", quality.sample_clips, marks),
            _make_contact_sheet("contact_worst", quality.worst_clips, marks),
        ]
    return {picture.name: picture for picture in pictures if picture is not None}


def _make_bar_chart(
    name: str, group_kind: str, groups: dict[str, tuple[int, float]], marks: Sequence[str]
) -> style.Picture:
    """Draws a bar for each group: the percentage of the sampled frames with a face.

    Args:
      name: name of the picture.
      group_kind: `class` or `speaker`, for the title.
      groups: (number of clips, fraction of frames with a face) by the name of the group. Only the 30
        groups (MAX_GROUPS) with the lowest fraction are drawn, the lowest first.
      marks: warnings that are written into the picture.

    Returns:
      The picture `name`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative text
      `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if there are no groups or Matplotlib is not installed.
    """
    shown_groups = sorted(groups.items(), key=lambda item: item[1][1])[:MAX_GROUPS]
    labels, percentages = (
        [text.shorten(key, 24) for key, _ in shown_groups],
        [100 * share for _, (_, share) in shown_groups],
    )
    title = f"Faces found, by {group_kind}" + (
        f" (lowest {MAX_GROUPS})" if len(groups) > len(shown_groups) else ""
    )

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        axes.barh(range(len(shown_groups)), percentages, color=theme.video, height=0.7)
        axes.set(
            yticks=range(len(shown_groups)), yticklabels=labels, xlim=(0, 100), xlabel="frames with a face, %"
        )
        axes.grid(axis="x")
        axes.set_title(title)

    alt = (
        f"Share of frames with a face by {group_kind}: {min(percentages):.0f} to"
        f" {max(percentages):.0f} per cent."
    )
    return style.make_picture(name, alt, (5.2, 1.1 + 0.24 * len(shown_groups)), draw, marks=marks)


def _make_histogram(
    name: str, title: str, unit: str, values: Float[np.ndarray, " n"], marks: Sequence[str]
) -> style.Picture | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        axes.hist(values, bins=min(24, max(5, len(values) // 5)), color=theme.audio)
        axes.set(xlabel=unit, ylabel="clips")
        axes.grid(axis="y")
        axes.set_title(title)

    alt = f"{title}: median {np.median(values):.1f}, from {values.min():.1f} to {values.max():.1f} {unit}."
    return style.make_picture(name, alt, (5.2, 2.6), draw, marks=marks)


def _make_contact_sheet(
    name: str, sheet_clips: list[SheetClip], marks: Sequence[str]
) -> style.Picture | None:
    """Draws face crops of each clip in a row, with its name and its percentage of frames with a face.

    Args:
      name: name of the picture.
      sheet_clips: clips with `clip_id`, `crops` uint8 [n h w 3] and `face_fraction` (0 to 1); the sheet has
        4 of them (SHEET_COLUMNS) per row.
      marks: warnings that are written into the picture.

    Returns:
      The picture `name`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative text
      `alt`, and `width` and `height` in CSS pixels. None if there are no clips.

    Raises:
      ValueError: if Matplotlib is not installed, or a clip has no crops.
    """
    if not sheet_clips:
        return None
    rows = -(-len(sheet_clips) // SHEET_COLUMNS)

    def draw(figure: Figure, theme: style.Theme) -> None:
        grid = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel()
        for axes in grid:
            style.hide_axes(axes)
        for axes, sheet_clip in zip(grid, sheet_clips, strict=False):
            axes.imshow(np.concatenate(list(sheet_clip.crops), axis=1))
            axes.set_xlabel(
                f"{text.shorten(sheet_clip.clip_id, 22)}  {text.format_percent(sheet_clip.face_fraction)} %",
                size=7,
            )

    alt = f"{len(sheet_clips)} clips with {CROPS_PER_SHEET_CLIP} crops each; black if no face was found."
    return style.make_picture(name, alt, (9.6, 0.86 * rows), draw, marks=marks)
