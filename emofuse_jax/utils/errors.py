"""What a user is told of an error: one line."""


def to_one_line(error_or_text: object) -> str:
    """The text of an error, or any other, without its line breaks."""
    return " ".join(str(error_or_text).split())


def format_error(error: BaseException) -> str:
    """The same with the error's class before it, where a library's text alone says little."""
    return to_one_line(f"{type(error).__name__}: {error}")
