"""The graph of a bundle: parsed, and refused where it would do more than compute.

StableHLO can also call native code and Python functions by their address in this process, and wait for
other devices. A graph of ours (`export.export_graph`) does none of it. Its one custom call,
`shape_assertion`, is evaluated while XLA learns the size of the batch, and is gone before anything runs.
"""

import json
import os
import signal
import subprocess
import sys

import jax
from jax import export as jax_export

from emofuse_jax.serving.bundle.format import GRAPH_FILE
from emofuse_jax.serving.bundle.stablehlo_reader import CUSTOM_CALL
from emofuse_jax.utils.errors import format_error

READER_COMMAND = (sys.executable, "-P", os.path.join(os.path.dirname(__file__), "stablehlo_reader.py"))
READER_TIMEOUT_SECONDS = 60.0
"""Seconds that reading a graph may take; a large one takes a fifth of a second."""
ALLOWED_DIALECTS = ("builtin", "func", "stablehlo")
ALLOWED_CUSTOM_CALLS = ("shape_assertion",)
"""Names of the custom calls that a graph may contain."""
FORBIDDEN_OPERATIONS = {
    *("infeed", "outfeed", "send", "recv", "composite", "partition_id", "replica_id"),
    *("all_gather", "all_reduce", "all_to_all", "collective_broadcast", "collective_permute"),
    *("reduce_scatter", "cross-replica-sum"),
}
"""Operations of StableHLO that speak with the host or another device, or that a compiler knows by a name."""


def parse_graph(path: str, metadata: dict, data: bytes) -> jax_export.Exported:
    """The graph of the bundle at `path`, of the bytes of its file and what bundle.json says.

    Raises:
      ValueError: it can't be read by this jax, or it asks for more than to compute; names the file.
    """
    try:
        exported = jax_export.deserialize(bytearray(data))
        operations = _list_operations(exported)  # parses what would else be parsed at the first answer
    except MemoryError:
        raise
    except Exception as error:  # what a parser of flatbuffers and StableHLO raises has no common class
        raise ValueError(
            f"{path}/{GRAPH_FILE}: written by jax {metadata['versions'].get('jax')} on"
            f" {metadata.get('created')},"
            f" cannot be read by jax {jax.__version__} ({format_error(error)[:300]});"
            " export it again from the checkpoint"
        ) from error
    for name, target in operations:
        if not _is_allowed(name, target):
            operation = f"a call of {target[:100]!r}" if target else name[:100]
            raise ValueError(f"{path}/{GRAPH_FILE}: asks for {operation}: not a graph that emofuse exports")
    if exported.ordered_effects or exported.unordered_effects:
        raise ValueError(f"{path}/{GRAPH_FILE}: has effects: not a graph that emofuse exports")
    return exported


def _list_operations(exported: jax_export.Exported) -> list[tuple[str, str]]:
    """Name, and target if it is a custom call, of every operation of a graph, however deep."""
    module_bytes = exported.mlir_module_serialized
    process = subprocess.run(
        READER_COMMAND, input=module_bytes, capture_output=True, timeout=READER_TIMEOUT_SECONDS
    )
    if process.returncode < 0:
        raise ValueError(f"it ends the program that reads it: {signal.Signals(-process.returncode).name}")
    if process.returncode:
        raise ValueError(process.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return [(name, target) for name, target in json.loads(process.stdout)]


def _is_allowed(name: str, target: str) -> bool:
    dialect, _, operation = name.partition(".")
    if name == CUSTOM_CALL:
        return target in ALLOWED_CUSTOM_CALLS
    return dialect in ALLOWED_DIALECTS and operation not in FORBIDDEN_OPERATIONS
