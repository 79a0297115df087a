"""Measures one suite of benchmarks/gpu.py in this process and writes its results as JSON objects, one a line.

python -m benchmarks.gpu_suites --suite=step --workdir=DIR --lines=step.jsonl
"""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags

from emofuse_jax.utils.process_setup import set_up_process

SUITE = flags.DEFINE_string("suite", None, "Suite to run.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for records and compiled programs.", required=True)
LINES = flags.DEFINE_string("lines", None, "File for the results.", required=True)
PEER = flags.DEFINE_enum("peer", "torch", ["torch", "none"], "Library to compare with; none: do not compare.")
DRY = flags.DEFINE_bool("dry", False, "Tiny sizes.")

STEP_CASES = (("bfloat16", 32, 10), ("bfloat16", 32, 1), ("float32", 32, 10), ("bfloat16", 128, 10))
"""Cases of the suite `step`: dtype, batch size, and steps per call; 1: a batch in memory, else resident data.
They start with the one that `profile` studies."""
DRY_STEP_CASES = (("bfloat16", 2, 2), ("bfloat16", 2, 1), ("float32", 2, 2))
DRY_POOLING_SHAPES = {"clip level": ((8,), 16, 12), "frame level": ((4, 3), 16, 16)}
DRY_CORPUS = {"clips": 108, "speakers": 6, "folds": 3, "classes": 3}
DRY_FEATURES = {"steps": 6, "audio": 8, "frames": 6, "face": 8}
Lines = Iterator[dict]


def main(argv: Sequence[str]) -> None:
    """Measures the suite of --suite.

    Raises:
      ValueError: A check of the suite `check` does not pass, or a suite fails.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(WORKDIR.value, "cache"))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch and servers share the GPU
    set_up_process()
    functions: dict[str, Callable[..., Lines]] = {
        "check": check_device,
        "fbp": measure_fbp,
        "step": measure_step,
        "profile": profile_step,
        "crossval": measure_crossval,
        "serve": measure_serving,
    }
    with open(LINES.value, "w", encoding="utf-8", buffering=1) as file:  # a line is written at once
        for line in functions[SUITE.value](dry=DRY.value):
            print(json.dumps(line), file=file)
            print(format_line(line), flush=True)


def has_peer() -> bool:
    """Returns True if PyTorch is measured too; starts JAX's devices."""
    return not explain_missing_peer()


def explain_missing_peer() -> str:
    """Returns the reason why PyTorch is not measured, or an empty string if it is; starts JAX's devices."""
    if PEER.value == "none":
        return "--peer=none"
    try:
        import torch
    except ImportError as error:
        return f"PyTorch cannot be imported: {error}"
    import jax

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return f"torch {torch.__version__} cannot use the GPU that JAX uses"
    return ""


def format_line(line: dict) -> str:
    """Returns a short text of a line of results."""
    from benchmarks.timing import format_row

    ((section, value),) = line.items()
    if section == "rows":
        return f"  {format_row(value)}"
    if section == "profile":
        first = value["operations"][0]
        return f"  {value['case']}: {value['operation_count']} operations, longest {first['operation']}"
    return f"  {section}: {value}"


def check_device(*, dry: bool) -> Lines:
    """Yields the devices of both sides, then each check.

    Raises:
      ValueError: A check does not pass.
    """
    import jax

    from benchmarks import device_check

    missing_peer = explain_missing_peer()
    yield {"device": describe_device(not missing_peer)}
    yield {"peer": {"name": "PyTorch", "missing": missing_peer or None}}
    failures = []
    for check in device_check.check_device():
        yield {"checks": check}
        failures += [] if check["passed"] else [check["check"]]
    if failures:
        raise ValueError(f"{jax.devices()[0].device_kind}: {', '.join(failures)}: not below the limit")


def describe_device(with_torch: bool) -> dict:
    """Returns names of the device in JAX and PyTorch, number of devices, memory, driver and CUDA versions."""
    import jax

    device = jax.devices()[0]
    description = {
        "backend": jax.default_backend(),
        "kind": device.device_kind,
        "count": jax.device_count(),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "platform_version": device.client.platform_version,
        "packages": {
            name: dist.version
            for dist in importlib.metadata.distributions()
            if (name := dist.metadata["Name"]) and name.startswith(("nvidia-", "jax-cuda", "triton"))
        },
    }
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        description["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        description["nvidia_smi"] = None
    if with_torch:
        import torch

        is_cuda = torch.cuda.is_available()
        description["torch"] = torch.cuda.get_device_name() if is_cuda else "cpu"
        description["torch_cuda"] = torch.version.cuda
    return description


def as_rows(rows: Iterator[dict]) -> Lines:
    """Yields a line for each row of results."""
    for row in rows:
        yield {"rows": row}


def measure_fbp(*, dry: bool) -> Lines:
    """Yields the rows of the suite `fbp`: the usual ones in float32, then those in bfloat16."""
    from benchmarks import suite_speed

    options = {"pooling_shapes": DRY_POOLING_SHAPES} if dry else {}
    for dtype in ("float32", "bfloat16"):
        yield from as_rows(
            suite_speed.measure_fbp(with_torch=has_peer(), repeats=1 if dry else 9, dtype=dtype, **options)
        )


def step_options(dry: bool) -> dict:
    """Returns the arguments of `measure_step` that both `step` and `profile` use."""
    from benchmarks.device_check import SMALL_SPEC, small_config
    from benchmarks.suite_speed import SPEC, load_am_fbp

    return {
        "make_config": small_config if dry else load_am_fbp,
        "workdir": WORKDIR.value,
        "spec": SMALL_SPEC if dry else SPEC,
    }


def measure_step(*, dry: bool) -> Lines:
    """Yields the rows of the suite `step` for each of STEP_CASES."""
    from benchmarks import suite_speed

    cases, repeats = (DRY_STEP_CASES, 1) if dry else (STEP_CASES, 9)
    options = step_options(dry)
    yield from as_rows(
        suite_speed.measure_step(with_torch=has_peer(), repeats=repeats, cases=cases, **options)
    )


def profile_step(*, dry: bool) -> Lines:
    """Yields the profile of the first of STEP_CASES, whose `seconds_per_call` are those of all its steps."""
    from benchmarks import suite_speed
    from benchmarks.operation_profile import profile_operations

    (dtype, batch_size, steps), options = (DRY_STEP_CASES if dry else STEP_CASES)[0], step_options(dry)
    config = suite_speed.make_step_config(options["make_config"], dtype, batch_size, steps)
    run, compiled = suite_speed.make_resident_step(config, WORKDIR.value, options["spec"])
    for _ in range(2):
        run()
    profile = profile_operations(run, compiled.as_text(), calls=1 if dry else 5)
    case = suite_speed.name_step_case(config)
    yield {"profile": {"case": case, "steps_per_call": steps, **profile}}


def measure_crossval(*, dry: bool) -> Lines:
    """Yields the rows of the suite `crossval` in float32, then in bfloat16."""
    from benchmarks import suite_crossval
    from emofuse_jax import settings
    from emofuse_jax.parallel import distributed

    distributed.use_one_device_per_core()
    options = {"repeats": 5}
    if dry:
        cases = {"tiny": (settings.with_features, DRY_FEATURES)}
        options = {"repeats": 1, "seeds": 1, "cases": cases, "corpus_sizes": DRY_CORPUS}
    for dtype in ("float32", "bfloat16"):
        yield from as_rows(
            suite_crossval.measure_crossval(WORKDIR.value, with_torch=has_peer(), dtype=dtype, **options)
        )


def measure_serving(*, dry: bool) -> Lines:
    """Yields the rows of the suite `serve`: AM-FBP in bfloat16, the small variant with --dry."""
    from benchmarks import suite_serve

    options = {"repeats": 1, "seconds": 1.0, "small": True} if dry else {"repeats": 3, "seconds": 3.0}
    yield from as_rows(
        suite_serve.measure_serving(with_torch=has_peer(), engines=["jax"], dtype="bfloat16", **options)
    )


if __name__ == "__main__":
    app.run(main)
