"""Measure, side by side in one run, and say the ratio (above 1: ours is better).

    emofuse benchmark --suite=records,prepare,loader --data=runs/demo/records --output=benchmark.json
    emofuse benchmark --suite=fbp,step,crossval,startup --output=speed.json
    emofuse benchmark --suite=systems --data=runs/demo/records --workdir=runs/systems --output=systems.json

records: reading and decoding records, ours against TFDS's own path on the same files.
prepare: clips to records, a core's rate against a PyTorch script's (--peer=torch, where it is installed) and
against bare decoding; on the clips of --clips, looped, and on those beside --data.
loader: records to ready batches, a core's rate against ArrayRecord's bare read and decoding at train time.
fbp, step: bilinear pooling, and AM-FBP's whole training step, against PyTorch.
crossval: all folds and seeds on made features at once, against a PyTorch loop.
serve: 16 callers of the JSON route, against one clip at a time and a PyTorch server.
startup: `emofuse train` to its first epoch, from the cache of compiled programs against without.
systems: every system trained on the demo corpus with three seeds, scored on its test speakers; goes on where
it was stopped, run by run.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from absl import flags

from benchmarks.timing import format_row
from emofuse_jax.utils.versions import package_versions

SPEED_SUITES = ("fbp", "step", "crossval", "startup", "serve")
SUITES = (*SPEED_SUITES, "records", "prepare", "loader", "systems")
SUITE = flags.DEFINE_list("suite", ["records"], f"What to measure, of: {', '.join(SUITES)}.")
DATA = flags.DEFINE_string("data", "runs/demo/records", "Directory written by emofuse prepare.")
WORKDIR = flags.DEFINE_string("workdir", "runs/systems", "Directory of runs and of looped clips, made once.")
CLIPS = flags.DEFINE_string(
    "clips", "../shared/data/talking_faces", "Directory of talking faces, for prepare."
)
PEER = flags.DEFINE_enum("peer", "torch", ["torch", "none"], "The script that prepare is measured against.")
SYSTEM_NAMES = flags.DEFINE_list("systems", [], "Names of systems, in place of all.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the rows to.")


def main(argv: Sequence[str]) -> None:
    """Runs the suites, prints a line per row, writes the JSON."""
    unknown = [name for name in SUITE.value if name not in SUITES]
    if argv[1:] or unknown:
        raise ValueError(f"unexpected {[*argv[1:], *unknown][0]!r}; see emofuse benchmark --help")
    measure_rows = measure_in_subprocess if len(SUITE.value) > 1 else measure_suite
    rows = [{"suite": name, **row} for name in SUITE.value for row in measure_rows(name)]
    if OUTPUT.value:
        packages = ("jax", "flax", "numpy", *(["torch"] if importlib.util.find_spec("torch") else []))
        machine = {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "versions": {"python": platform.python_version(), **package_versions(packages)},
        }
        with open(OUTPUT.value, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)


def measure_in_subprocess(suite: str) -> list[dict]:
    """The rows of a suite that runs in a process of its own: none finds what another left behind."""
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "rows.json")
        forwarded_flags = {"data": DATA, "workdir": WORKDIR, "clips": CLIPS, "peer": PEER}
        arguments = [f"--{name}={flag.value}" for name, flag in forwarded_flags.items()]
        arguments += [f"--suite={suite}", f"--systems={','.join(SYSTEM_NAMES.value)}", f"--output={output}"]
        if subprocess.run([sys.executable, "-m", "emofuse_jax.cli", "benchmark", *arguments]).returncode:
            raise ValueError(f"--suite={suite} did not end well; what it said stands above")
        with open(output, encoding="utf-8") as file:
            return [{k: v for k, v in row.items() if k != "suite"} for row in json.load(file)["rows"]]


def measure_suite(suite: str) -> Iterator[dict]:
    """The rows of a suite, each told as soon as it is there."""
    if suite == "systems":
        yield from measure_systems()
        return
    from benchmarks import suite_loader, suite_prepare, timing

    if suite in SPEED_SUITES:
        yield from print_rows(suite, measure_speed(suite))
        return
    suite_functions = {
        "records": lambda: timing.measure_records(DATA.value),
        "prepare": lambda: suite_prepare.measure_prepare(
            DATA.value, CLIPS.value, WORKDIR.value, with_torch=PEER.value == "torch"
        ),
        "loader": lambda: suite_loader.measure_loader(DATA.value),
    }
    yield from print_rows(suite, suite_functions[suite]())


def measure_speed(suite: str) -> Iterator[dict]:
    """The rows of a suite whose peer is PyTorch on the same device."""
    from benchmarks import suite_crossval, suite_serve, suite_speed, suite_startup
    from emofuse_jax.parallel import distributed

    with_torch = PEER.value == "torch" and importlib.util.find_spec("torch") is not None
    if suite == "startup":
        return suite_startup.measure_startup(WORKDIR.value, repeats=3)
    if suite == "serve":
        return suite_serve.measure_serving(with_torch=with_torch, repeats=5)
    if suite == "crossval":
        distributed.use_one_device_per_core()
        return suite_crossval.measure_crossval(WORKDIR.value, with_torch=with_torch, repeats=5)
    return {"fbp": suite_speed.measure_fbp, "step": suite_speed.measure_step}[suite](
        with_torch=with_torch, repeats=9
    )


def print_rows(suite: str, rows: Iterator[dict]) -> Iterator[dict]:
    """The rows, a line each on the terminal."""
    for row in rows:
        print(f"{suite}/{format_row(row)}", flush=True)
        yield row


def measure_systems() -> Iterator[dict]:
    """Yields the rows of the suite `systems`; prints a table of all of them at the end."""
    from benchmarks import system_table, systems

    rows = []
    for row in systems.run_systems(system_table.SYSTEMS, DATA.value, WORKDIR.value, SYSTEM_NAMES.value):
        print(
            f"{row['case']}: UA {row['ours']:.3f} +- {row['sd']:.3f} over {row['repeats']} seeds",
            flush=True,
        )
        rows.append(row)
    print(systems.format_table(rows))
    yield from rows
