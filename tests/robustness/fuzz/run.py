"""Runs thousands of hostile inputs, each in a process that it may kill.

    python -m tests.robustness.fuzz.run --output=FILE

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

from tests.robustness.fuzz import log
from tests.robustness.fuzz.pool import run_inputs
from tests.robustness.fuzz.worker import INPUT_TIMEOUT_SECONDS

KIND_PERCENTS = {
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
    parser.add_argument("--kinds", default=",".join(KIND_PERCENTS))
    parser.add_argument("--seconds", type=float, default=INPUT_TIMEOUT_SECONDS, help="for one input")
    parser.add_argument("--replay", default="", help="KIND:SEED")
    args = parser.parse_args(argv)
    if args.replay:
        replay(f"{os.path.splitext(args.output)[0]}.samples", *args.replay.split(":"))
        return 0
    summary = run_fuzz(args.output, args.kinds.split(","), args.inputs, args.workers, args.seconds)
    for line in summary["failures"]:
        print(f"{line['status']}: {line['kind']}:{line['seed']}: {line['error']}: {line['message'][:300]}")
    print(f"{summary['inputs']} inputs, crashes = {summary['crashes']}, hangs = {summary['hangs']}")
    return 1 if summary["failures"] else 0


def run_fuzz(
    output: str,
    kinds: Sequence[str],
    inputs: int,
    workers: int,
    timeout_seconds: float = INPUT_TIMEOUT_SECONDS,
) -> dict:
    """Runs what is left to run of so many inputs, writes `output`, and gives what it says."""
    base = os.path.abspath(os.path.splitext(output)[0])
    os.makedirs(os.path.dirname(base), exist_ok=True)
    done = {(line["kind"], line["seed"]) for line in log.read_lines(f"{base}.jsonl")}
    with open(f"{base}.jsonl", "a", encoding="utf-8") as lines:
        for kind, count in count_inputs(kinds, inputs).items():
            remaining_seeds = [seed for seed in range(count) if (kind, seed) not in done]
            start_time = time.monotonic()
            for seed, verdict in run_kind(kind, remaining_seeds, f"{base}.samples", workers, timeout_seconds):
                lines.write(json.dumps({"kind": kind, "seed": seed, **vars(verdict)}) + "\n")
                lines.flush()
            print(
                f"{kind}: {len(remaining_seeds)} inputs in {time.monotonic() - start_time:.0f} s", flush=True
            )
    from emofuse_jax.utils.versions import package_versions  # workers import this file, and need none of it

    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "versions": package_versions()}
    report = {"machine": machine, **log.summarise(log.read_lines(f"{base}.jsonl"))}
    with open(f"{base}.json", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    return report


def count_inputs(kinds: Sequence[str], inputs: int) -> dict[str, int]:
    """Inputs of each kind, by SHARES."""
    kind_shares = {kind: KIND_PERCENTS.get(kind, 1) for kind in kinds}
    input_counts = {kind: inputs * share // sum(kind_shares.values()) for kind, share in kind_shares.items()}
    input_counts[kinds[0]] += inputs - sum(input_counts.values())
    return input_counts


def run_kind(kind: str, seeds: Sequence[int], folder: str, workers: int, timeout_seconds: float):
    """The verdicts of a kind's inputs; its samples are made once, whole or not at all."""
    if not seeds:
        return
    folder = os.path.join(folder, kind)
    samples = os.path.join(folder, "samples")
    if not os.path.isdir(samples):
        os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder)
        importlib.import_module(f"tests.robustness.fuzz.kinds.{kind}").make(scratch)
        os.rename(scratch, samples)
    yield from run_inputs(kind, seeds, folder, workers, timeout_seconds)


def replay(folder: str, name: str, seed: str) -> None:
    """One input in this process, unguarded."""
    kind = importlib.import_module(f"tests.robustness.fuzz.kinds.{name}")
    case = kind.load(os.path.join(folder, name, "samples"))
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        kind.attempt(case, int(seed), scratch)


if __name__ == "__main__":
    sys.exit(main())
