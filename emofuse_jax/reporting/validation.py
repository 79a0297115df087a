"""Looks at the results where they enter the report, so that a wrong length is one clear line."""

from collections.abc import Mapping, Sequence

from emofuse_jax.reporting import tables, text


def check_results(results: Mapping) -> None:
    """Raises ValueError, one line, naming the field of `results` that is missing or has a wrong size."""
    for field in ("classes", "modalities"):
        if not len(tables.listed(results, field)):
            raise ValueError(f"report: results[{field!r}] is missing or empty, expected at least one entry")
    classes = len(results["classes"])
    for name, row in results["modalities"].items():
        where = f"results['modalities'][{name!r}]"
        if name not in text.MODALITIES:
            raise ValueError(
                f"report: {where} is not a modality, expected one of {', '.join(text.MODALITIES)}"
            )
        for field in ("recall", "confusion"):
            if len(row.get(field, ())) != classes:
                found = len(row.get(field, ()))
                raise ValueError(f"report: {where}[{field!r}] has length {found}, expected {classes} classes")
        if any(len(counts) != classes for counts in row["confusion"]):
            raise ValueError(f"report: {where}['confusion'] is not square, expected {classes} x {classes}")
    _check_clips(results, classes)


def check_examples(examples: Sequence[Mapping]) -> None:
    """Raises ValueError, one line, where a clip's faces, mask, times and attention don't fit together."""
    for example in examples:
        faces = example.get("faces")
        frames = 0 if faces is None else len(faces)
        where = f"report: example {example['clip_id']}"
        attention = example.get("video_attention")
        if frames and attention is not None and (not len(attention) or frames % len(attention)):
            found = len(attention)
            expected = f"{frames} faces, or a number that divides it"
            raise ValueError(f"{where}: video_attention has length {found}, expected {expected}")
        for field in ("face_mask", "face_time"):
            value = example.get(field)
            if frames and value is None and field == "face_mask":
                raise ValueError(
                    f"report: example {example['clip_id']}: face_mask is missing, expected {frames} flags"
                )
            if frames and value is not None and len(value) != frames:
                raise ValueError(f"{where}: {field} has length {len(value)}, expected {frames} faces")


def _check_clips(results: Mapping, classes: int) -> None:
    lengths = {
        name: len(tables.listed(results, name)) for name in ("clips", "labels", "speakers", "probabilities")
    }
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"report: clips, labels, speakers, probabilities have lengths {list(lengths.values())}"
        )
    if any(len(row) != classes for row in tables.listed(results, "probabilities")):
        raise ValueError(
            f"report: results['probabilities'] has a row of a length other than {classes} classes"
        )
