"""What became of one input, and by which rules."""

import dataclasses
import re
import time

from emofuse_jax.utils.errors import to_one_line

REFUSALS = (ValueError, OSError)
"""What cli/main.py turns into one line."""
LONGEST = 6000
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
    began = time.monotonic()
    status, error, message = "accepted", "", ""
    try:
        kind.attempt(case, seed, scratch)
    except MemoryError as found:
        status, error, message = "memory", type(found).__name__, to_one_line(found)
    except REFUSALS as found:
        status, error, message = "refused", type(found).__name__, to_one_line(found)
        if complaint := wrong_with(message, scratch, kind.NAMED):
            status, error = "crash", f"{error}: {complaint}"
    except Exception as found:
        status, error, message = "crash", type(found).__name__, f"{to_one_line(found)} {where(found)}"
    if watched:
        status, error, message = "escape", "what it did", "; ".join(watched)
    return Verdict(status, error, message[: LONGEST + 100], round(time.monotonic() - began, 3))


def where(error: BaseException) -> str:
    """The last places of a traceback."""
    places, frame = [], error.__traceback__
    while frame:
        places.append(f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}")
        frame = frame.tb_next
    return f"({' < '.join(reversed(places[-4:]))})"


def wrong_with(message: str, scratch: str, named: str) -> str:
    """Why a text is no reason that a user can act on; nothing where it is one."""
    if not message:
        return "no text"
    if len(message) > LONGEST:
        return f"a text of {len(message)} characters"
    if scratch not in message and not re.search(named, message):
        return "names neither file nor field"
    return ""
