"""One page that shows what a checkpoint can do: numbers, curves, confusions, speakers, attention.

The page stands alone (pictures and style are inside it, no script, no network); the pictures are also
written beside it, in ``figures/``.
"""

import os
import pathlib
import re
from collections.abc import Sequence

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
from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.utils.files import write_atomic

_FIGURE_PATTERN = re.compile(
    r"(learning_loss|learning_ua|confusion|recall|speakers|comparison|example_\d+(_inside)?|model_\w+)\.png"
)


def write_report(
    path: str | os.PathLike,
    *,
    results: dict,
    history: list[dict],
    examples: list[dict],
    title: str,
    comparison: dict | None = None,
    marks: Sequence[str] = (),
) -> None:
    """Writes the page to `path` and its pictures to ``figures/`` beside it, each to a temporary name first.

    Fractions are shown in per cent; NaN and None (a class that is absent) as a dash.

    Args:
      path: the HTML file; missing folders are made.
      results: ``config, corpus, protocol, fold, split, checkpoint_step, classes, versions``; for each clip
        ``clips, labels, speakers, probabilities [n c]``; ``per_speaker: {name: {ua, wa, clips}}``;
        ``modalities``: of ``both, audio, video`` those that the network has, each with ``wa, ua, wf1, mf1``,
        ``<metric>_interval`` (lo, hi), ``recall [c]``, ``confusion [c c]`` (rows truth). Optional:
        ``dataset`` (a path, of which the last part is shown) and ``date`` (as it is to be printed).
      history: a row an epoch: ``epoch, train_loss, train_ua, validation_loss, validation_ua``; any may be
        absent.
      examples: clips to show: ``clip_id, label, prediction, probabilities {name: p}``, ``spectrogram [t f]``
        (valid steps only), ``seconds``, ``max_hz``, ``audio_attention [t' f'] | [t'] | None`` over the same
        seconds and frequencies, ``faces u8 [s h w 3]``, ``face_mask bool [s]``, ``face_time [s] | None``
        (seconds), ``video_attention [l] | None`` (l divides s), ``voice_weight``, ``face_weight`` (float or
        None). Optional: ``bin_hz [f]``, the bins' middles where they are not even in Hz; ``aux``, the clip's
        named intermediates, of which those that reporting/figures/display_specs.py knows are drawn and the
        others named.
      title: heading of the page.
      comparison: rows ``name -> {ua, wa, wf1, ua_interval, ...}``, and ``ceilings: {name: best possible}``.
      marks: warnings shown on top of the page and in each picture, such as SYNTHETIC; a picture shows what
        stands before a mark's colon.

    Raises:
      ValueError: one line naming the field, where lengths don't agree.
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


def _describe_clip(number: int, example: dict, marks: Sequence[str]) -> dict:
    """What the page says of one clip: names, pictures, and numbers that no picture has."""
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


def _make_pictures(results, history, comparison, marks) -> dict[str, Picture]:
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


def main_modality(modalities: dict) -> str:
    """The entry that the page leads with: both streams where there are both."""
    return "both" if "both" in modalities else next(iter(modalities))


def _render_page(results, pictures, clips, model_pictures, undrawn_aux, title, comparison, marks) -> str:
    modalities = results["modalities"]
    main_key = main_modality(modalities)
    compared_scores = score_figures.select_networks(comparison or {})
    ceilings = (comparison or {}).get("ceilings") or {}
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
        comparison=tables.score_table(compared_scores, text.NETWORK_NAMES, ceilings) if comparison else None,
        other_ceilings={k: text.format_percent(v) for k, v in ceilings.items() if k not in compared_scores},
        recalls=tables.recall_rows(modalities, results["classes"]),
        speakers=tables.speaker_rows(results.get("per_speaker") or {}),
        mistakes=tables.mistake_rows(results),
        pictures=pictures,
        gallery=clips,
        learned=model_pictures,
        inside=undrawn_aux,
        chance=text.format_percent(1 / len(results["classes"])),
    )
