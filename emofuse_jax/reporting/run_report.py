"""Writes the report of one checkpoint: scores, learning curves, confusions, speakers and attention.

The page is self-contained: it includes its pictures and styles, has no script and loads nothing from the
network. The pictures are also written to the folder `figures/` next to the page.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from emofuse_jax.reporting import page, tables, text, validation
from emofuse_jax.reporting.figures import (
    class_matrices,
    classes,
    clip_figure,
    curves,
    display_specs,
    panels,
    score_figures,
)
from emofuse_jax.reporting.figures.score_figures import NetworkComparison
from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring.result_types import EpochRow, EvaluationResults, ScoreFields
from emofuse_jax.utils.files import write_atomic

_FIGURE_PATTERN = re.compile(
    r"(learning_loss|learning_ua|confusion|recall|speakers|comparison|example_\d+(_inside)?|model_\w+)\.png"
)


def write_report(
    path: str | os.PathLike[str],
    *,
    results: EvaluationResults,
    history: Sequence[EpochRow],
    examples: Sequence[GalleryClip],
    title: str,
    comparison: NetworkComparison | None = None,
    marks: Sequence[str] = (),
) -> None:
    """Writes the page to `path` and its pictures to the folder `figures/` next to it.

    Existing files are replaced. Each file is written under a temporary name first, so that an interrupted
    call leaves no incomplete file. Figures of an earlier report that this one does not have are deleted.
    Fractions are shown in per cent; NaN and None (a class without clips) are shown as a dash.

    Args:
      path: the HTML file; missing folders are created.
      results: results of `emofuse evaluate`: `classes`, `modalities` (scores by `both`, `audio` or `video`,
        with `recall` and `confusion`) and, all or none, the lists `clips`, `labels`, `speakers` and
        `probabilities`. Shown if present: `config`, `dataset` (the last part of the path), `corpus`,
        `protocol`, `fold`, `split`, `checkpoint_step`, `date`, `per_speaker` and `versions`.
      history: one row per epoch: `epoch`, `train_loss`, `validation_loss`, `train_ua` and `validation_ua`;
        values that are not known may be missing.
      examples: a dict for each clip to show: `clip_id`, `label`, `prediction`, and `probabilities` by class;
        with a `spectrogram` [t f] also `seconds`, and `max_hz` or `bin_hz`; with `faces` uint8 [s h w 3] also
        `face_mask` bool [s]. Optional are `audio_attention`, `video_attention`, `face_time` [s],
        `voice_weight`, `face_weight` and `aux`, the intermediate outputs by name. Those that DISPLAY_SPECS
        lists are drawn, the others are named.
      title: heading of the page.
      comparison: networks to compare: `networks`, scores (`ua`, ... and their intervals) by name of the
        network, and `ceilings`, best possible accuracies (fractions) by name. None to leave the section out.
      marks: warnings shown at the top of the page and in each picture, such as SYNTHETIC; a picture shows the
        part of a mark before its colon.

    Raises:
      ValueError: if `classes` or `modalities` of `results` is missing or empty, if a modality is unknown, if
        the length of a list does not fit the number of classes or clips, if an example has no `face_mask`, or
        its length, or that of `face_time` or `video_attention`, does not fit the number of faces; the message
        is one line that names the field. Also if an output in `aux` of an example does not fit the number of
        classes or has another number of axes than its panel, if an interval does not have two bounds, or if
        Matplotlib is not installed.
      IndexError: if a label in `results` is not the index of a class.
      KeyError: if an example lacks another field that is needed.
      OSError: if a file cannot be written or deleted.
    """
    validation.validate_results(results)
    validation.validate_examples(examples)
    pictures = _make_pictures(results, history, comparison, marks)
    clips = [_describe_clip(i + 1, example, marks) for i, example in enumerate(examples)]
    aux = examples[0].get("aux") or {} if examples else {}
    model_pictures = class_matrices.model_pictures(aux, results["classes"], marks)
    html = _render_page(
        results, pictures, clips, model_pictures, display_specs.list_undrawn(aux), title, comparison, marks
    )
    path = pathlib.Path(path)
    all_pictures = [*pictures.values(), *(picture for clip in clips for picture in clip["pictures"])]
    page.write_figures(
        path.parent / "figures", [*all_pictures, *(picture for _, picture in model_pictures)], _FIGURE_PATTERN
    )
    write_atomic(path, html.encode())


class GalleryEntry(TypedDict):
    """Entry of one clip in the gallery of the page."""

    name: str
    label: str
    prediction: str
    pictures: list[Picture]
    listed: list[tuple[str, str]]
    """Names and values of small intermediate outputs, as text."""


def _describe_clip(number: int, example: GalleryClip, marks: Sequence[str]) -> GalleryEntry:
    explanation = panels.explanation_picture(number, example, marks)
    return {
        "name": example["clip_id"],
        "label": example["label"],
        "prediction": example["prediction"],
        "pictures": [
            clip_figure.example_picture(number, example, marks),
            *([explanation] if explanation else []),
        ],
        "listed": display_specs.list_small_values(example.get("aux") or {}),
    }


def _make_pictures(
    results: EvaluationResults,
    history: Sequence[EpochRow],
    comparison: NetworkComparison | None,
    marks: Sequence[str],
) -> dict[str, Picture]:
    class_names, modalities = results["classes"], results["modalities"]
    chance = 1 / len(class_names)
    main_key = main_modality(modalities)
    confusion = np.asarray(modalities[main_key]["confusion"])
    recalls = {name: row["recall"] for name, row in modalities.items()}
    pictures = [
        curves.loss_picture(history, marks),
        curves.ua_picture(history, chance, marks),
        classes.confusion_picture(confusion, class_names, marks),
        classes.recall_picture(recalls, class_names, marks),
        score_figures.speaker_picture(
            results.get("per_speaker") or {}, chance, modalities[main_key].get("ua"), marks
        ),
        score_figures.comparison_picture(comparison, chance, marks) if comparison else None,
    ]
    return {picture.name: picture for picture in pictures if picture is not None}


def main_modality(modalities: Mapping[str, ScoreFields]) -> str:
    """Returns the key of the scores that the page shows first: `both` if present, otherwise the first key.

    Raises StopIteration if there are no scores.
    """
    return "both" if "both" in modalities else next(iter(modalities))


def _render_page(
    results: EvaluationResults,
    pictures: Mapping[str, Picture],
    clips: Sequence[GalleryEntry],
    model_pictures: Sequence[tuple[str, Picture]],
    undrawn_aux: Sequence[tuple[str, str]],
    title: str,
    comparison: NetworkComparison | None,
    marks: Sequence[str],
) -> str:
    modalities = results["modalities"]
    main_key = main_modality(modalities)
    networks, ceilings = (comparison.networks, comparison.ceilings) if comparison else ({}, {})
    return page.render_html(
        "report.html",
        title=title,
        marks=list(marks),
        facts=tables.provenance_rows(results),
        versions={name: str(value) for name, value in (results.get("versions") or {}).items()},
        headline=tables.score_table({main_key: modalities[main_key]}, text.MODALITY_NAMES),
        main_name=text.MODALITY_NAMES[main_key],
        scores=tables.score_table(modalities, text.MODALITY_NAMES),
        modality_names=[text.MODALITY_NAMES[name] for name in modalities],
        comparison=tables.score_table(networks, text.NETWORK_NAMES, ceilings) if comparison else None,
        other_ceilings={k: text.format_percent(v) for k, v in ceilings.items() if k not in networks},
        recalls=tables.recall_rows(modalities, results["classes"]),
        speakers=tables.speaker_rows(results.get("per_speaker") or {}),
        mistakes=tables.mistake_rows(results),
        pictures=pictures,
        gallery=clips,
        learned=model_pictures,
        inside=undrawn_aux,
        chance=text.format_percent(1 / len(results["classes"])),
    )
