"""Profiles a compiled program with jax.profiler and sums the time on the device for each operation of XLA."""

import glob
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator

import jax
from jax.profiler import ProfileData

CONTAINERS = re.compile(r"(while|call|conditional)(\.|$)")
"""Names of operations that contain others; the time of those would count twice."""
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?[\]})]) ([\w-]+)\(")
UNKNOWN_OPERATION = {"opcode": None, "result": None, "source": None}
MAX_RESULT_CHARS = 100
"""A tuple of many shapes is cut."""
OPERATION_NAME = re.compile(r'op_name="([^"]*)"')


def profile_operations(run: Callable[[], object], hlo_text: str, *, calls: int, top: int = 30) -> dict:
    """Returns the operations that take most time on the device while `run` is called `calls` times.

    Call `run` once before, so that everything is compiled.

    Args:
      run: Runs the program and waits for its result.
      hlo_text: Text of the compiled program, to describe its operations; may be empty.
      calls: Number of profiled calls.
      top: Number of operations to return.

    Returns:
      `calls`; `seconds_per_call` (wall-clock time); `device_seconds_per_call`, the sum of all operations,
      which on several streams or cores can be larger; `operation_count`; and `operations`, a list of dicts
      with `operation`, `opcode`, `result` (its shape and layout), `source` (the JAX operation),
      `count_per_call`, `seconds_per_call` and `share` of the time on the device, the largest first. What the
      text of the program does not contain is None.

    Raises:
      ValueError: The profile has no operations.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            start_time = time.perf_counter()
            for _ in range(calls):
                run()
            seconds = time.perf_counter() - start_time
        (path,) = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
        operations = sum_operations(ProfileData.from_file(path))
    if not operations:
        raise ValueError("the profile has no operations")
    return {"calls": calls, "seconds_per_call": seconds / calls} | summarize(
        operations, describe_operations(hlo_text), calls, top
    )


def sum_operations(profile: ProfileData) -> dict[str, tuple[int, float]]:
    """Returns count and total seconds by the name of the operation."""
    counts, nanoseconds = Counter(), Counter()
    for name, duration_ns in device_events(profile):
        if not CONTAINERS.match(name):
            counts[name] += 1
            nanoseconds[name] += duration_ns
    return {name: (counts[name], nanoseconds[name] / 1e9) for name in counts}


def device_events(profile: ProfileData) -> Iterator[tuple[str, float]]:
    """Yields the name and the nanoseconds of each operation that a device ran.

    On a GPU, each stream is a line with its kernels and copies; the name is that of the operation that
    started the kernel, or that of the kernel if it is unknown, as in CUDA graphs. On a TPU, the line
    `XLA Ops` has the operations. On a CPU they are among other events of the host's threads.
    """
    device_planes = [plane for plane in profile.planes if plane.name.startswith("/device:")]
    for plane in device_planes:
        lines = list(plane.lines)
        streams = [line for line in lines if line.name.startswith("Stream")]
        for line in streams or [line for line in lines if line.name == "XLA Ops"]:
            for event in line.events:
                yield dict(event.stats).get("hlo_op") or event.name, event.duration_ns
    if not device_planes:
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    if name := dict(event.stats).get("hlo_op"):
                        yield name, event.duration_ns


def describe_operations(hlo_text: str) -> dict[str, dict]:
    """Returns `opcode`, `result` and `source` (None if there is none) by the name of the operation in XLA."""
    descriptions = {}
    for line in hlo_text.splitlines():
        if instruction := INSTRUCTION.match(line):
            source = OPERATION_NAME.search(line)
            descriptions[instruction[1]] = {
                "opcode": instruction[3],
                "result": instruction[2][:MAX_RESULT_CHARS],
                "source": source and source[1],
            }
    return descriptions


def summarize(operations: dict, descriptions: dict, calls: int, top: int) -> dict:
    """Returns the sums over all operations, and a dict for each of the `top` longest ones."""
    total_seconds = sum(seconds for _, seconds in operations.values())
    longest = sorted(operations.items(), key=lambda item: -item[1][1])[:top]
    return {
        "device_seconds_per_call": total_seconds / calls,
        "operation_count": len(operations),
        "operations": [
            {
                "operation": name,
                **descriptions.get(name, UNKNOWN_OPERATION),
                "count_per_call": count / calls,
                "seconds_per_call": seconds / calls,
                "share": seconds / total_seconds if total_seconds else 0.0,
            }
            for name, (count, seconds) in longest
        ],
    }
