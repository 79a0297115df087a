"""The log of a run: a line for each input as it goes, and what the lines come to."""

import collections
import json
import os
import re

FAILED_STATUSES = ("crash", "hang", "memory", "escape")


def read_lines(path: str) -> list[dict]:
    """The lines of a log; what a killed run left half written is cut off."""
    if not os.path.exists(path):
        return []
    with open(path, "rb+") as file:
        data = file.read()
        complete_length = data.rfind(b"\n") + 1
        file.truncate(complete_length)
    return [json.loads(line) for line in data[:complete_length].splitlines()]


def summarise(lines: list[dict]) -> dict:
    """Counts in all and for each kind, and every input that failed."""
    kinds: dict[str, list[dict]] = collections.defaultdict(list)
    for line in lines:
        kinds[line["kind"]].append(line)
    failures = [line for line in lines if line["status"] in FAILED_STATUSES]
    counts = collections.Counter(line["status"] for line in lines)
    return {
        "inputs": len(lines),
        "crashes": len(failures) - counts["hang"],
        "hangs": counts["hang"],
        "kinds": {kind: _summarise_kind(kinds[kind]) for kind in sorted(kinds)},
        "failures": failures,
    }


def _summarise_kind(lines: list[dict]) -> dict:
    counts = collections.Counter(line["status"] for line in lines)
    refused: dict[str, dict] = {}
    for line in lines:
        if line["status"] == "refused":
            entry = refused.setdefault(error_class(line), {"count": 0, "example": line["message"][:300]})
            entry["count"] += 1
    return {
        "inputs": len(lines),
        "accepted": counts["accepted"],
        "refused": dict(sorted(refused.items(), key=lambda item: -item[1]["count"])),
        "crashes": sum(counts[status] for status in FAILED_STATUSES if status != "hang"),
        "hangs": counts["hang"],
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "slowest": max(line["seconds"] for line in lines),
    }


def error_class(line: dict) -> str:
    """A refusal without what differs from input to input: paths, names, numbers."""
    text = re.sub(r"\S*/[^\s:]*", "PATH", line["message"])
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)", "..", text)
    text = re.sub(r"(--)?\w+(\.\w+)+(=\S*)?", "FIELD", text)
    text = re.sub(r"-?\d[\d.e+-]*", "N", text)
    return f"{line['error']}: {' '.join(text.split()[:9])}"[:100]
