"""A verb that ends itself at a rename: victim.py NUMBER before|after SIGNAL SCRIPT [ARGUMENT...].

Shards, checkpoints and results all become whole by a rename: the moments around one are those at which
something half written could be taken for whole.
"""

import os
import runpy
import signal
import sys


def deadly(rename, number: int, when: str, name: str):
    """`rename`, at whose call of that number the process is sent a signal."""
    calls = iter(range(1 << 62))

    def renamed(*arguments, **named):
        hit = next(calls) == number
        if hit and when == "before":
            os.kill(os.getpid(), signal.Signals[name])
        done = rename(*arguments, **named)
        if hit and when == "after":
            os.kill(os.getpid(), signal.Signals[name])
        return done

    return renamed


def main() -> None:
    number, when, name, script, *arguments = sys.argv[1:]
    os.replace = os.rename = deadly(os.replace, int(number), when, name)
    sys.argv[:] = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
