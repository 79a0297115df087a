"""Validates the input of a report, so that a wrong length gives a clear error message of one line."""

from collections.abc import Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.reporting.tables import list_or_empty
from emofuse_jax.scoring.result_types import EvaluationResults

PASS_RESULTS = "pass the results of emofuse evaluate"
CORRECT_EXAMPLE = "correct this field, or pass the examples that make_examples returns"


def validate_results(results: EvaluationResults) -> None:
    """Validates the `results` argument of `run_report.write_report`; changes and returns nothing.

    Raises ValueError with a message of one line that names the field if `classes` or `modalities` is missing
    or empty, a modality is not `both`, `audio` or `video`, `recall` or `confusion` of a modality or a row of
    `probabilities` does not have one entry for each class, or `clips`, `labels`, `speakers` and
    `probabilities` differ in length.
    """
    for field, entries in (("classes", results.get("classes")), ("modalities", results.get("modalities"))):
        if not len(list_or_empty(entries)):
            raise ValueError(
                f"report: results[{field!r}] is missing or empty, expected at least one entry; {PASS_RESULTS}"
            )
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
                    f"report: {location}[{field!r}] has length {length},"
                    f" expected {num_classes}, one entry for each class; {PASS_RESULTS}"
                )
        row_lengths = [len(counts) for counts in row["confusion"]]
        if any(length != num_classes for length in row_lengths):
            raise ValueError(
                f"report: {location}['confusion'] has rows of lengths {row_lengths},"
                f" expected {num_classes} x {num_classes} counts of clips; {PASS_RESULTS}"
            )
    _validate_clips(results, num_classes)


def validate_examples(examples: Sequence[GalleryClip]) -> None:
    """Validates the `examples` argument of `run_report.write_report`; changes and returns nothing.

    Clips without faces pass. Raises ValueError with a message of one line that names the clip and the field
    if `face_mask` is missing, if `face_mask` or `face_time` does not have one entry for each face, or if the
    number of faces is not a multiple of the length of `video_attention`; KeyError if there is no `clip_id`.
    """
    for example in examples:
        faces = example.get("faces")
        face_count = 0 if faces is None else len(faces)
        clip_id = example["clip_id"]
        attention = example.get("video_attention")
        if face_count and attention is not None and (not len(attention) or face_count % len(attention)):
            raise ValueError(
                f"report: example {clip_id}: video_attention has length {len(attention)}, expected"
                f" {face_count}, one weight for each face, or a divisor of {face_count}; {CORRECT_EXAMPLE}"
            )
        for field, value in (
            ("face_mask", example.get("face_mask")),
            ("face_time", example.get("face_time")),
        ):
            if face_count and value is None and field == "face_mask":
                raise ValueError(
                    f"report: example {clip_id}: face_mask is missing, expected {face_count} booleans,"
                    f" True for each face crop that shows a face; {CORRECT_EXAMPLE}"
                )
            if face_count and value is not None and len(value) != face_count:
                raise ValueError(
                    f"report: example {clip_id}: {field} has length {len(value)},"
                    f" expected {face_count}, one entry for each face; {CORRECT_EXAMPLE}"
                )


def _validate_clips(results: EvaluationResults, num_classes: int) -> None:
    lengths = [
        len(list_or_empty(results.get("clips"))),
        len(list_or_empty(results.get("labels"))),
        len(list_or_empty(results.get("speakers"))),
        len(list_or_empty(results.get("probabilities"))),
    ]
    if len(set(lengths)) != 1:
        raise ValueError(
            f"report: clips, labels, speakers and probabilities of results have lengths {lengths},"
            f" expected equal lengths, one entry for each clip; {PASS_RESULTS}"
        )
    for i, row in enumerate(list_or_empty(results.get("probabilities"))):
        if len(row) != num_classes:
            raise ValueError(
                f"report: results['probabilities'][{i}] has length {len(row)},"
                f" expected {num_classes}, one probability for each class; {PASS_RESULTS}"
            )
