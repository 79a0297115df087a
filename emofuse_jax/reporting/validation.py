"""Looks at the results where they enter the report, so that a wrong length is one clear line."""

from collections.abc import Mapping, Sequence

from emofuse_jax.reporting import tables, text


def validate_results(results: Mapping) -> None:
    """Raises ValueError, one line, naming the field of `results` that is missing or has a wrong size."""
    for field in ("classes", "modalities"):
        if not len(tables.get_list(results, field)):
            raise ValueError(f"report: results[{field!r}] is missing or empty, expected at least one entry")
    num_classes = len(results["classes"])
    for name, row in results["modalities"].items():
        location = f"results['modalities'][{name!r}]"
        if name not in text.MODALITY_NAMES:
            raise ValueError(
                f"report: {location} is not a modality, expected one of {', '.join(text.MODALITY_NAMES)}"
            )
        for field in ("recall", "confusion"):
            if len(row.get(field, ())) != num_classes:
                length = len(row.get(field, ()))
                raise ValueError(
                    f"report: {location}[{field!r}] has length {length}, expected {num_classes} classes"
                )
        if any(len(counts) != num_classes for counts in row["confusion"]):
            raise ValueError(
                f"report: {location}['confusion'] is not square, expected {num_classes} x {num_classes}"
            )
    _validate_clips(results, num_classes)


def validate_examples(examples: Sequence[Mapping]) -> None:
    """Raises ValueError, one line, where a clip's faces, mask, times and attention don't fit together."""
    for example in examples:
        faces = example.get("faces")
        frames = 0 if faces is None else len(faces)
        location = f"report: example {example['clip_id']}"
        attention = example.get("video_attention")
        if frames and attention is not None and (not len(attention) or frames % len(attention)):
            length = len(attention)
            expected = f"{frames} faces, or a number that divides it"
            raise ValueError(f"{location}: video_attention has length {length}, expected {expected}")
        for field in ("face_mask", "face_time"):
            value = example.get(field)
            if frames and value is None and field == "face_mask":
                raise ValueError(
                    f"report: example {example['clip_id']}: face_mask is missing, expected {frames} flags"
                )
            if frames and value is not None and len(value) != frames:
                raise ValueError(f"{location}: {field} has length {len(value)}, expected {frames} faces")


def _validate_clips(results: Mapping, num_classes: int) -> None:
    lengths = {
        name: len(tables.get_list(results, name)) for name in ("clips", "labels", "speakers", "probabilities")
    }
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"report: clips, labels, speakers, probabilities have lengths {list(lengths.values())}"
        )
    if any(len(row) != num_classes for row in tables.get_list(results, "probabilities")):
        raise ValueError(
            f"report: results['probabilities'] has a row of a length other than {num_classes} classes"
        )
