"""A verb that ends itself at a rename: PROGRAM DIRECTORY CLASS NUMBER before|after SIGNAL SCRIPT [WORD...].

Shards, checkpoints and results all become whole by a rename: the moments around one are those at which
something half written could be taken for whole. `DIRECTORY.renames` gets a line for each, marked at the one
that is struck; a class that there is not strikes none.
"""

import os
import runpy
import signal
import sys

from tests.robustness.chaos.file_watcher import file_class

STRUCK_PREFIX = "! "


def kill_at_rename(rename, directory: str, target_class: str, number: int, timing: str, signal_name: str):
    """`rename`, at whose call of that number among those of a class the process is sent a signal."""
    calls = iter(range(1 << 62))

    def rename_and_kill(source, destination, **options):
        path = os.path.relpath(destination, directory)
        is_target = file_class(path) == target_class and next(calls) == number
        with open(f"{directory}.renames", "a", encoding="utf-8") as file:
            file.write(f"{STRUCK_PREFIX * is_target}{path}\n")
        if is_target and timing == "before":
            os.kill(os.getpid(), signal.Signals[signal_name])
        done = rename(source, destination, **options)
        if is_target and timing == "after":
            os.kill(os.getpid(), signal.Signals[signal_name])
        return done

    return rename_and_kill


def main() -> None:
    directory, target_class, number, timing, signal_name, script, *arguments = sys.argv[1:]
    os.replace = os.rename = kill_at_rename(
        os.replace, directory, target_class, int(number), timing, signal_name
    )
    sys.argv[:] = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
