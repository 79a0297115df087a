"""What a user is told of an error: one line."""


def one_line(told: object) -> str:
    """The text of an error, or any other, without its line breaks."""
    return " ".join(str(told).split())
