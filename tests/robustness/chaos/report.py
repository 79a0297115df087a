"""What the runs come to: `results/chaos.json`."""

import collections
import os
import platform
import subprocess

from emofuse_jax.utils.versions import package_versions


def make_report(runs: list[dict], seed: int) -> dict:
    """Of which code and machine, how many were killed at what, what must not be, and every start."""
    killed = [{"verb": run["verb"], **one} for run in runs for one in run["attempts"] if one["killed"]]
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {
        "machine": {**machine, "versions": package_versions()},
        "commit": get_commit(),
        "seed": seed,
        "kills": len(killed),
        "by_verb": count_kills(killed, "verb"),
        "by_moment": count_kills(killed, "moment"),
        "by_target": count_kills(killed, "moment", "class"),
        "by_signal": count_kills(killed, "signal"),
        "by_end": count_kills(killed, "verb", "signal", "status"),
        "attempts": sum(len(run["attempts"]) for run in runs),
        "runs": len(runs),
        "resumes": sum(run["resumes"] for run in runs),
        "gone_after": max((one["gone_after"] for run in runs for one in list_starts(run)), default=0.0),
        **count_failures(runs),
        "all": runs,
    }


def count_kills(killed: list[dict], *names: str) -> dict[str, int]:
    """Kills by some of their fields."""
    return dict(sorted(collections.Counter(" ".join(str(one[n]) for n in names) for one in killed).items()))


def count_failures(runs: list[dict]) -> dict[str, int]:
    """What must not be."""
    all_starts = [start for run in runs for start in list_starts(run)]
    return {
        "mismatches": sum(bool(run["differ"]) for run in runs),
        "hangs": sum(one["hung"] for one in all_starts),
        "errors": sum(len(run["wrong"]) for run in runs),
        "orphans": sum(one["orphans"] > 0 for one in all_starts),
        "shared memory left": sum(bool(one["shared_memory"]) for one in all_starts),
    }


def list_starts(run: dict) -> list[dict]:
    """All of a run: those that were struck, and the one that was left to end."""
    return run["attempts"] + ([run["last"]] if run["last"] else [])


def get_commit() -> str:
    """Of the code; `-dirty` where files of it are changed, but for results, which a run writes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return f"{git('rev-parse', 'HEAD') or 'unknown'}{'-dirty' * bool(changed)}"
