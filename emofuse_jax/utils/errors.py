"""What a user is told of an error: one line."""


def to_one_line(error_or_text: object) -> str:
    """The text of an error, or any other, without its line breaks."""
    return " ".join(str(error_or_text).split())


def format_error(error: BaseException) -> str:
    """The same with the error's class before it, where a library's text alone says little."""
    return to_one_line(f"{type(error).__name__}: {error}")


def other_schema_error(
    path: str, kind: str, schema: int, current_schema: int, fields: dict, remedy: str
) -> ValueError:
    """Returns the error for a file that an older or a newer emofuse wrote.

    Args:
      path: the file or directory; the error begins with it.
      kind: what it is, for example "checkpoint".
      schema: its schema number.
      current_schema: the schema number that this emofuse reads.
      fields: its JSON object, whose `versions` says which emofuse wrote it.
      remedy: what to do with an older file.
    """
    versions = fields.get("versions")
    version = versions.get("emofuse") if isinstance(versions, dict) else None
    writer = f", written by emofuse {to_one_line(version)[:40]}" if isinstance(version, str) else ""
    remedy = "update emofuse" if schema > current_schema else remedy
    written = f"{kind} schema {str(schema)[:40]}{writer}"
    return ValueError(f"{path}: {written}; this emofuse reads schema {current_schema}: {remedy}")
