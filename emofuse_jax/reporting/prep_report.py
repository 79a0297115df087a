"""`prep_report.html`: what a preparation found, to be looked at before anything is trained on it."""

import collections
import os
import pathlib
import re

import numpy as np

from emofuse_jax.data.corpus_statistics import (
    CROPS_PER_SHEET_CLIP,
    CorpusQuality,
    SheetClip,
    face_fraction_by_group,
    measure_quality,
)
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.reporting import page, text
from emofuse_jax.reporting.cards import DATA_CARD, data_card, write_card
from emofuse_jax.reporting.figures import style
from emofuse_jax.scoring.result_labels import corpus_marks

NAME = "prep_report.html"
MOST_GROUPS = 30
"""Bars of a picture; of more speakers those with the fewest faces are drawn."""
MOST_ROWS = 500
"""Clips in the table of masked and failed ones; manifest.csv has all."""
COLUMNS = 4
"""Clips side by side on a contact sheet."""
_OURS = re.compile(r"(faces_by_\w+|lengths|loudness|contact_\w+)\.png")


def write_prep_report(path: str) -> str:
    """Measures the records in `path` and writes the page there, its pictures and a data card; its path."""
    quality = measure_quality(path)
    marks = corpus_marks(quality.prep["corpus"])
    pictures = _pictures(quality, marks)
    bad = [row for row in quality.manifest if row["status"] != "kept"]
    statuses = collections.Counter(row["status"] for row in quality.manifest)
    markup = page.render_html(
        "prep_report.html",
        title=f"{quality.prep['corpus']}: {len(quality.manifest)} clips prepared",
        marks=marks,
        facts=_facts(quality, statuses),
        versions=quality.prep["versions"],
        pictures=pictures,
        classes=_table(face_fraction_by_group(quality, "label")),
        speakers=_table(face_fraction_by_group(quality, "speaker")),
        reasons=_reasons(bad),
        bad=bad[:MOST_ROWS],
        more=max(0, len(bad) - MOST_ROWS),
        notes=quality.prep["notes"],
    )
    folder = pathlib.Path(path)
    page.write_figures(folder / "figures", list(pictures.values()), _OURS)
    page.write_atomically(folder / NAME, markup.encode())
    write_card(path, DATA_CARD, data_card(open_dataset(path)))
    return os.path.join(path, NAME)


def _facts(quality: CorpusQuality, statuses: collections.Counter) -> list[tuple[str, str]]:
    prep, seconds = quality.prep, quality.audio_seconds[np.isfinite(quality.audio_seconds)]
    found = text.format_percent(float(quality.face_fractions.mean())) if len(quality.face_fractions) else "-"
    return [
        ("Recipe", prep["settings"]["recipe"]),
        ("Kept", str(statuses["kept"])),
        ("Masked", str(statuses["masked"])),
        ("Failed", str(statuses["failed"])),
        ("Speakers", str(len(prep["speakers"]))),
        ("Classes", str(len(prep["classes"]))),
        ("Sound", f"{seconds.sum() / 3600:.2f} h"),
        ("Frames with a face", f"{found} %"),
    ]


def _table(groups: dict[str, tuple[int, float]]) -> list[dict]:
    return [{"name": k, "clips": n, "found": text.format_percent(share)} for k, (n, share) in groups.items()]


def _reasons(bad: list[dict]) -> list[tuple[str, str, int]]:
    """Status, kind of reason (numbers left out) and how many, most first."""
    kinds = collections.Counter((row["status"], re.sub(r"\d+(\.\d+)?", "N", row["reason"])) for row in bad)
    return [(status, reason, count) for (status, reason), count in kinds.most_common()]


def _pictures(quality: CorpusQuality, marks) -> dict[str, style.Picture]:
    sides = quality.prep["shape"]
    drawn = [
        _bars("faces_by_class", "class", face_fraction_by_group(quality, "label"), marks),
        _bars("faces_by_speaker", "speaker", face_fraction_by_group(quality, "speaker"), marks),
        _histogram("lengths", "Length of the sound", "seconds", quality.audio_seconds, marks),
        _histogram("loudness", "Loudness", "dB, in the spectrogram's own unit", quality.loudness_db, marks),
    ]
    if sides["h"]:
        drawn += [
            _sheet("contact_even", quality.even_clips, marks),
            _sheet("contact_worst", quality.worst_clips, marks),
        ]
    return {picture.name: picture for picture in drawn if picture is not None}


def _bars(name: str, what: str, groups: dict[str, tuple[int, float]], marks) -> style.Picture:
    """Share of frames with a face for each group; of many, those with the smallest."""
    shown = sorted(groups.items(), key=lambda item: item[1][1])[:MOST_GROUPS]
    names, shares = [text.shorten(key, 24) for key, _ in shown], [100 * share for _, (_, share) in shown]
    title = f"Faces found by {what}" + (f", the {MOST_GROUPS} least" if len(groups) > len(shown) else "")

    def draw(figure, theme):
        axes = figure.subplots()
        axes.barh(range(len(shown)), shares, color=theme.video, height=0.7)
        axes.set(yticks=range(len(shown)), yticklabels=names, xlim=(0, 100), xlabel="frames with a face, %")
        axes.grid(axis="x")
        axes.set_title(title)

    alt = f"Share of frames with a face by {what}: {min(shares):.0f} to {max(shares):.0f} per cent."
    return style.make_picture(name, alt, (5.2, 1.1 + 0.24 * len(shown)), draw, marks=marks)


def _histogram(name: str, title: str, unit: str, values, marks) -> style.Picture | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None

    def draw(figure, theme):
        axes = figure.subplots()
        axes.hist(values, bins=min(24, max(5, len(values) // 5)), color=theme.audio)
        axes.set(xlabel=unit, ylabel="clips")
        axes.grid(axis="y")
        axes.set_title(title)

    alt = f"{title}: median {np.median(values):.1f}, from {values.min():.1f} to {values.max():.1f} {unit}."
    return style.make_picture(name, alt, (5.2, 2.6), draw, marks=marks)


def _sheet(name: str, looks: list[SheetClip], marks) -> style.Picture | None:
    """Crops of each clip side by side, its name and the share of faces below."""
    if not looks:
        return None
    rows = -(-len(looks) // COLUMNS)

    def draw(figure, theme):
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes in grid:
            style.hide_axes(axes)
        for axes, look in zip(grid, looks, strict=False):
            axes.imshow(np.concatenate(list(look.crops), axis=1))
            axes.set_xlabel(
                f"{text.shorten(look.clip_id, 22)}  {text.format_percent(look.face_fraction)} %", size=7
            )

    alt = f"{len(looks)} clips with {CROPS_PER_SHEET_CLIP} crops each; black where no face was found."
    return style.make_picture(name, alt, (9.6, 0.86 * rows), draw, marks=marks)
