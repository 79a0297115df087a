"""A verb that ends itself at a rename: victim.py DIRECTORY CLASS NUMBER before|after SIGNAL SCRIPT [WORD...].

Shards, checkpoints and results all become whole by a rename: the moments around one are those at which
something half written could be taken for whole. `DIRECTORY.renames` gets a line for each, marked at the one
that is struck; a class that there is not strikes none.
"""

import os
import runpy
import signal
import sys

from tests.chaos.watch import class_of

STRUCK = "! "


def deadly(rename, directory: str, target: str, number: int, when: str, name: str):
    """`rename`, at whose call of that number among those of a class the process is sent a signal."""
    calls = iter(range(1 << 62))

    def renamed(source, destination, **named):
        path = os.path.relpath(destination, directory)
        hit = class_of(path) == target and next(calls) == number
        with open(f"{directory}.renames", "a", encoding="utf-8") as file:
            file.write(f"{STRUCK * hit}{path}\n")
        if hit and when == "before":
            os.kill(os.getpid(), signal.Signals[name])
        done = rename(source, destination, **named)
        if hit and when == "after":
            os.kill(os.getpid(), signal.Signals[name])
        return done

    return renamed


def main() -> None:
    directory, target, number, when, name, script, *arguments = sys.argv[1:]
    os.replace = os.rename = deadly(os.replace, directory, target, int(number), when, name)
    sys.argv[:] = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
