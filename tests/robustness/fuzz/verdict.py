"""What became of one input, and by which rules."""

import dataclasses
import re
import time

from emofuse_jax.utils.errors import to_one_line

REFUSAL_ERRORS = (ValueError, OSError)
"""What cli/main.py turns into one line."""
MAX_MESSAGE_CHARS = 6000
"""Characters of a reason, which may repeat a name of five thousand."""


class Refused(ValueError):
    """An input that was refused by an answer and not by an exception."""


class Broken(Exception):
    """An answer that no input may get, such as HTTP's 500."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """accepted | refused | crash | hang | memory | escape, the class of error, its text, and the seconds."""

    status: str
    error: str = ""
    message: str = ""
    seconds: float = 0.0


def judge(kind, case, seed: int, scratch: str, watched: list[str]) -> Verdict:
    """Runs one input; `watched` fills with what the process did that no input may make it do."""
    start_time = time.monotonic()
    status, error, message = "accepted", "", ""
    try:
        kind.attempt(case, seed, scratch)
    except MemoryError as exception:
        status, error, message = "memory", type(exception).__name__, to_one_line(exception)
    except REFUSAL_ERRORS as exception:
        status, error, message = "refused", type(exception).__name__, to_one_line(exception)
        if fault := find_message_fault(message, scratch, kind.NAMED):
            status, error = "crash", f"{error}: {fault}"
    except Exception as exception:
        status, error, message = (
            "crash",
            type(exception).__name__,
            f"{to_one_line(exception)} {format_places(exception)}",
        )
    if watched:
        status, error, message = "escape", "what it did", "; ".join(watched)
    return Verdict(status, error, message[: MAX_MESSAGE_CHARS + 100], round(time.monotonic() - start_time, 3))


def format_places(error: BaseException) -> str:
    """The last places of a traceback."""
    places, frame = [], error.__traceback__
    while frame:
        places.append(f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}")
        frame = frame.tb_next
    return f"({' < '.join(reversed(places[-4:]))})"


def find_message_fault(message: str, scratch: str, required_pattern: str) -> str:
    """Why a text is no reason that a user can act on; nothing where it is one."""
    if not message:
        return "no text"
    if len(message) > MAX_MESSAGE_CHARS:
        return f"a text of {len(message)} characters"
    if scratch not in message and not re.search(required_pattern, message):
        return "names neither file nor field"
    return ""
