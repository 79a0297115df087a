"""Hostile input by the thousand, each in a process that it may kill: python -m tests.fuzz.run --output=FILE

Goes on where a killed run stood: the lines lie in FILE with the ending `.jsonl`, the samples beside it. Exit
status 1 where anything crashed or hung. `--replay=KIND:SEED` runs one input here, and shows its traceback.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence

from tests.fuzz import log
from tests.fuzz.pool import verdicts
from tests.fuzz.worker import SECONDS

SHARES = {
    "media": 20,
    "records": 15,
    "checkpoints": 8,
    "bundles": 12,
    "configs": 11,
    "prepared": 11,
    "workdir": 8,
    "names": 4,
    "http": 7,
    "live": 4,
}
"""Of a hundred inputs."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="results/fuzz.json")
    parser.add_argument("--inputs", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", default=",".join(SHARES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for one input")
    parser.add_argument("--replay", default="", help="KIND:SEED")
    asked = parser.parse_args(argv)
    if asked.replay:
        replay(f"{os.path.splitext(asked.output)[0]}.samples", *asked.replay.split(":"))
        return 0
    found = fuzz(asked.output, asked.kinds.split(","), asked.inputs, asked.workers, asked.seconds)
    for line in found["failures"]:
        print(f"{line['status']}: {line['kind']}:{line['seed']}: {line['error']}: {line['message'][:300]}")
    print(f"{found['inputs']} inputs, crashes = {found['crashes']}, hangs = {found['hangs']}")
    return 1 if found["failures"] else 0


def fuzz(output: str, kinds: Sequence[str], inputs: int, workers: int, seconds: float = SECONDS) -> dict:
    """Runs what is left to run of so many inputs, writes `output`, and gives what it says."""
    base = os.path.abspath(os.path.splitext(output)[0])
    os.makedirs(os.path.dirname(base), exist_ok=True)
    done = {(line["kind"], line["seed"]) for line in log.read(f"{base}.jsonl")}
    with open(f"{base}.jsonl", "a", encoding="utf-8") as lines:
        for kind, count in counts(kinds, inputs).items():
            left = [seed for seed in range(count) if (kind, seed) not in done]
            began = time.monotonic()
            for seed, verdict in run_kind(kind, left, f"{base}.samples", workers, seconds):
                lines.write(json.dumps({"kind": kind, "seed": seed, **vars(verdict)}) + "\n")
                lines.flush()
            print(f"{kind}: {len(left)} inputs in {time.monotonic() - began:.0f} s", flush=True)
    from emofuse_jax.utils.versions import package_versions  # workers import this file, and need none of it

    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "versions": package_versions()}
    found = {"machine": machine, **log.summary(log.read(f"{base}.jsonl"))}
    with open(f"{base}.json", "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    return found


def counts(kinds: Sequence[str], inputs: int) -> dict[str, int]:
    """Inputs of each kind, by SHARES."""
    shares = {kind: SHARES.get(kind, 1) for kind in kinds}
    found = {kind: inputs * share // sum(shares.values()) for kind, share in shares.items()}
    found[kinds[0]] += inputs - sum(found.values())
    return found


def run_kind(kind: str, seeds: Sequence[int], folder: str, workers: int, seconds: float):
    """The verdicts of a kind's inputs; its samples are made once, whole or not at all."""
    if not seeds:
        return
    folder = os.path.join(folder, kind)
    samples = os.path.join(folder, "samples")
    if not os.path.isdir(samples):
        os.makedirs(folder, exist_ok=True)
        made = tempfile.mkdtemp(dir=folder)
        importlib.import_module(f"tests.fuzz.kinds.{kind}").make(made)
        os.rename(made, samples)
    yield from verdicts(kind, seeds, folder, workers, seconds)


def replay(folder: str, name: str, seed: str) -> None:
    """One input in this process, unguarded."""
    kind = importlib.import_module(f"tests.fuzz.kinds.{name}")
    case = kind.load(os.path.join(folder, name, "samples"))
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        kind.attempt(case, int(seed), scratch)


if __name__ == "__main__":
    sys.exit(main())
