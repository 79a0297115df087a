"""Measures emofuse and its peers in one run and prints the ratio; above 1 means that emofuse is faster.

    emofuse benchmark --suite=records,prepare,loader --data=runs/demo/records --output=benchmark.json
    emofuse benchmark --suite=fbp,step,crossval,startup --output=speed.json
    emofuse benchmark --suite=systems --data=runs/demo/records --workdir=runs/systems --output=systems.json

records: reads and decodes records; peer: TFDS on the same files.
prepare: turns clips into records on one core, with the clips of --clips (looped) and those next to --data;
peers: a PyTorch script (with --peer=torch, if PyTorch is installed) and decoding alone.
loader: turns records into batches on one core; peers: reading with ArrayRecord alone, and decoding clips
during training.
fbp, step: bilinear pooling, and the complete training step of AM-FBP; peer: PyTorch.
crossval: trains all folds and seeds on synthetic features at once; peer: a PyTorch loop over them.
serve: 16 clients of the JSON route; peers: the same server with one clip at a time, and a PyTorch server.
startup: `emofuse train` until the end of its first epoch, with the cache of compiled programs; peer: without.
systems: trains every system on the demo corpus with three seeds and scores the test speakers. If it was
stopped, it resumes with the first run that is not complete.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from absl import flags

from benchmarks.timing import describe_machine, format_row

SPEED_SUITES = ("fbp", "step", "crossval", "startup", "serve")
SUITES = (*SPEED_SUITES, "records", "prepare", "loader", "systems")
SUITE = flags.DEFINE_list("suite", ["records"], f"Suites to run, from: {', '.join(SUITES)}.")
DATA = flags.DEFINE_string("data", "runs/demo/records", "Directory written by emofuse prepare.")
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/systems", "Directory for runs and looped clips, which later calls use again."
)
CLIPS = flags.DEFINE_string(
    "clips", "../shared/data/talking_faces", "Directory with clips of talking faces, for the suite prepare."
)
PEER = flags.DEFINE_enum("peer", "torch", ["torch", "none"], "Library to compare with; none: do not compare.")
SYSTEM_NAMES = flags.DEFINE_list("systems", [], "Systems to run in the suite systems; default: all.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results; default: only print them.")


def main(argv: Sequence[str]) -> None:
    """Measures the suites of --suite, prints a line per result, and writes the JSON file of --output.

    Raises:
      ValueError: A suite or argument is unknown, or a suite fails.
    """
    unknown = [name for name in SUITE.value if name not in SUITES]
    if argv[1:] or unknown:
        raise ValueError(f"unexpected {[*argv[1:], *unknown][0]!r}; run emofuse benchmark --help")
    measure_rows = measure_in_subprocess if len(SUITE.value) > 1 else measure_suite
    rows = [{"suite": name, **row} for name in SUITE.value for row in measure_rows(name)]
    if OUTPUT.value:
        machine = describe_machine(("jax", "flax", "numpy", "torch"))
        with open(OUTPUT.value, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)


def measure_in_subprocess(suite: str) -> list[dict]:
    """Measures a suite in a new process, so that suites do not influence each other, and returns its rows.

    Raises:
      ValueError: The process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "rows.json")
        forwarded_flags = {"data": DATA, "workdir": WORKDIR, "clips": CLIPS, "peer": PEER}
        arguments = [f"--{name}={flag.value}" for name, flag in forwarded_flags.items()]
        arguments += [f"--suite={suite}", f"--systems={','.join(SYSTEM_NAMES.value)}", f"--output={output}"]
        if subprocess.run([sys.executable, "-m", "emofuse_jax.cli", "benchmark", *arguments]).returncode:
            raise ValueError(f"--suite={suite}: the process failed; its error is printed above")
        with open(output, encoding="utf-8") as file:
            return [{k: v for k, v in row.items() if k != "suite"} for row in json.load(file)["rows"]]


def measure_suite(suite: str) -> Iterator[dict]:
    """Measures a suite in this process; prints and yields each row as soon as it is measured."""
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
    """Returns an iterator that measures the rows of one of the SPEED_SUITES.

    The peer is PyTorch on the same device if it is installed (except for `startup`).
    """
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
    """Prints a line for each row and yields the row."""
    for row in rows:
        print(f"{suite}/{format_row(row)}", flush=True)
        yield row


def measure_systems() -> Iterator[dict]:
    """Measures the suite `systems`: prints a line per system and a table at the end, then yields all rows."""
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
