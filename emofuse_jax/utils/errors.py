"""What a user is told of an error: one line."""


def one_line(told: object) -> str:
    """The text of an error, or any other, without its line breaks."""
    return " ".join(str(told).split())


def with_kind(error: BaseException) -> str:
    """The same with the error's class before it, where a library's text alone says little."""
    return one_line(f"{type(error).__name__}: {error}")
