"""Parses the graph of a bundle and rejects operations that do more than compute.

StableHLO can also call native code and Python functions by their address in this process, and wait for other
devices. Graphs of emofuse (`export.export_graph`) do none of this. Their only custom call, `shape_assertion`,
is evaluated when XLA learns the batch size and is removed before anything runs.
"""

import json
import os
import signal
import subprocess
import sys

import jax
from jax import export as jax_export

from emofuse_jax.serving.bundle.format import GRAPH_FILE
from emofuse_jax.serving.bundle.metadata import BundleMetadata
from emofuse_jax.serving.bundle.stablehlo_reader import CUSTOM_CALL
from emofuse_jax.utils.errors import format_error

READER_COMMAND = (sys.executable, "-P", os.path.join(os.path.dirname(__file__), "stablehlo_reader.py"))
"""Command of the process that parses a graph."""
READER_TIMEOUT_SECONDS = 60.0
"""Time limit for parsing a graph; a large one takes 0.2 seconds."""
ALLOWED_DIALECTS = ("builtin", "func", "stablehlo")
"""MLIR dialects whose operations a graph may contain."""
ALLOWED_CUSTOM_CALLS = ("shape_assertion",)
"""Targets of the custom calls that a graph may contain."""
FORBIDDEN_OPERATIONS = {
    *("infeed", "outfeed", "send", "recv", "composite", "partition_id", "replica_id"),
    *("all_gather", "all_reduce", "all_to_all", "collective_broadcast", "collective_permute"),
    *("reduce_scatter", "cross-replica-sum"),
}
"""StableHLO operations that communicate with the host or other devices, or are resolved by name."""


def parse_graph(path: str, metadata: BundleMetadata, data: bytes) -> jax_export.Exported:
    """Returns the graph of a bundle as an `Exported`; its `call(weights, inputs)` computes the outputs.

    Args:
      path: bundle directory, for messages.
      metadata: contents of bundle.json, for messages.
      data: contents of the graph's file.

    Raises:
      ValueError: this version of jax cannot read the graph, its parser crashes or takes more than 60 seconds,
        or the graph has side effects or an operation that is not allowed. The message names the file.
      MemoryError: the memory is too small for the graph.
    """
    try:
        exported = jax_export.deserialize(bytearray(data))
        operations = _list_operations(exported)  # parses now what is otherwise parsed at the first call
    except MemoryError:
        raise
    except Exception as error:  # the parsers' errors have no common class
        raise ValueError(
            f"{path}/{GRAPH_FILE}: written by jax {metadata['versions'].get('jax')} on"
            f" {metadata.get('created')},"
            f" cannot be read by jax {jax.__version__} ({format_error(error)[:300]});"
            " export it again from the checkpoint"
        ) from error
    for name, target in operations:
        if not _is_allowed(name, target):
            operation = f"custom_call {target[:100]!r}" if target else name[:100]
            raise ValueError(
                f"{path}/{GRAPH_FILE}: operation {operation} is not allowed; not a graph that emofuse"
                " exports, export the bundle again from the checkpoint"
            )
    if exported.ordered_effects or exported.unordered_effects:
        raise ValueError(
            f"{path}/{GRAPH_FILE}: has side effects; not a graph that emofuse exports, export the bundle"
            " again from the checkpoint"
        )
    return exported


def _list_operations(exported: jax_export.Exported) -> list[tuple[str, str]]:
    """Returns (name, target) of each different operation in a graph at any depth, sorted.

    Only custom calls have a target; for other operations it is "". Another process parses the graph. Raises
    ValueError if it fails or crashes, subprocess.TimeoutExpired if it takes more than 60 seconds, and OSError
    if it cannot be started.
    """
    module_bytes = exported.mlir_module_serialized
    process = subprocess.run(
        READER_COMMAND, input=module_bytes, capture_output=True, timeout=READER_TIMEOUT_SECONDS
    )
    if process.returncode < 0:
        raise ValueError(
            f"the parser crashed with {signal.Signals(-process.returncode).name}, so {GRAPH_FILE} is"
            " probably damaged; copy or export the bundle again"
        )
    if process.returncode:
        raise ValueError(process.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return [(name, target) for name, target in json.loads(process.stdout)]


def _is_allowed(name: str, target: str) -> bool:
    """Returns True if a graph may contain the operation `name` or, for a custom call, its `target`.

    Allowed are operations of the dialects builtin, func and stablehlo that do not communicate with the host
    or other devices (FORBIDDEN_OPERATIONS), and custom calls of `shape_assertion`.
    """
    dialect, _, operation = name.partition(".")
    if name == CUSTOM_CALL:
        return target in ALLOWED_CUSTOM_CALLS
    return dialect in ALLOWED_DIALECTS and operation not in FORBIDDEN_OPERATIONS
