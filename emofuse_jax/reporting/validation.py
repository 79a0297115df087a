"""Validates the input of a report, so that a wrong length gives a clear error message of one line."""

from collections.abc import Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.reporting.tables import list_or_empty
from emofuse_jax.scoring.result_types import EvaluationResults


def validate_results(results: EvaluationResults) -> None:
    """Validates the `results` argument of `run_report.write_report`.

    Raises ValueError with a message of one line that names the field if `classes` or `modalities` is missing
    or empty, a modality is unknown, or the length of a list does not fit the number of classes or clips.
    """
    for field, entries in (("classes", results.get("classes")), ("modalities", results.get("modalities"))):
        if not len(list_or_empty(entries)):
            raise ValueError(f"report: results[{field!r}] is missing or empty, expected at least one entry")
    num_classes = len(results["classes"])
    for name, row in results["modalities"].items():
        location = f"results['modalities'][{name!r}]"
        if name not in text.MODALITY_NAMES:
            raise ValueError(
                f"report: {location} is not a modality; expected one of {', '.join(text.MODALITY_NAMES)}"
            )
        for field, length in (
            ("recall", len(row.get("recall", ()))),
            ("confusion", len(row.get("confusion", ()))),
        ):
            if length != num_classes:
                raise ValueError(
                    f"report: {location}[{field!r}] has length {length}, expected {num_classes} classes"
                )
        if any(len(counts) != num_classes for counts in row["confusion"]):
            raise ValueError(
                f"report: {location}['confusion'] is not square, expected {num_classes} x {num_classes}"
            )
    _validate_clips(results, num_classes)


def validate_examples(examples: Sequence[GalleryClip]) -> None:
    """Validates the `examples` argument of `run_report.write_report`.

    Raises ValueError with a message of one line that names the clip and the field if `face_mask` is missing,
    or if the length of `face_mask`, `face_time` or `video_attention` does not fit the number of faces.
    """
    for example in examples:
        faces = example.get("faces")
        frames = 0 if faces is None else len(faces)
        location = f"report: example {example['clip_id']}"
        attention = example.get("video_attention")
        if frames and attention is not None and (not len(attention) or frames % len(attention)):
            length = len(attention)
            expected = f"{frames} faces, or a divisor of that number"
            raise ValueError(f"{location}: video_attention has length {length}, expected {expected}")
        for field, value in (
            ("face_mask", example.get("face_mask")),
            ("face_time", example.get("face_time")),
        ):
            if frames and value is None and field == "face_mask":
                raise ValueError(
                    f"report: example {example['clip_id']}: face_mask is missing; expected {frames} booleans"
                )
            if frames and value is not None and len(value) != frames:
                raise ValueError(f"{location}: {field} has length {len(value)}, expected {frames} faces")


def _validate_clips(results: EvaluationResults, num_classes: int) -> None:
    lengths = [
        len(list_or_empty(results.get("clips"))),
        len(list_or_empty(results.get("labels"))),
        len(list_or_empty(results.get("speakers"))),
        len(list_or_empty(results.get("probabilities"))),
    ]
    if len(set(lengths)) != 1:
        raise ValueError(
            f"report: clips, labels, speakers, probabilities have lengths {lengths}; expected equal lengths"
        )
    if any(len(row) != num_classes for row in list_or_empty(results.get("probabilities"))):
        raise ValueError(
            f"report: results['probabilities'] has a row whose length is not {num_classes},"
            " the number of classes"
        )
