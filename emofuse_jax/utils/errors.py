"""Formats errors as messages of one line."""

from collections.abc import Mapping


def to_one_line(error_or_text: object) -> str:
    """Returns the text of an error or of any other object as one line.

    Each run of whitespace becomes one space; whitespace at both ends is removed.
    """
    return " ".join(str(error_or_text).split())


def format_error(error: BaseException) -> str:
    """Returns "ClassName: text" of an error as one line; for libraries whose text alone says little.

    The class name has no module; without a text, the result is "ClassName:".
    """
    return to_one_line(f"{type(error).__name__}: {error}")


def other_schema_error(
    path: str, kind: str, schema: int, current_schema: int, fields: Mapping[str, object], remedy: str
) -> ValueError:
    """Returns the ValueError for a file that an older or newer emofuse wrote; the caller raises the error.

    Args:
      path: The file or directory; the message begins with it.
      kind: Kind of the file, for example "checkpoint".
      schema: Schema number of the file.
      current_schema: Schema number that this emofuse reads.
      fields: JSON object of the file; its `versions`, if present, name the emofuse that wrote it.
      remedy: What to do with a file of an older schema. For a newer one the message says "update emofuse".
    """
    versions = fields.get("versions")
    version = versions.get("emofuse") if isinstance(versions, dict) else None
    writer = f", written by emofuse {to_one_line(version)[:40]}" if isinstance(version, str) else ""
    remedy = "update emofuse" if schema > current_schema else remedy
    written = f"{kind} schema {str(schema)[:40]}{writer}"
    return ValueError(f"{path}: {written}; this emofuse reads schema {current_schema}: {remedy}")
