"""Reads a StableHLO graph from stdin and prints its operations.

The output is JSON: a list of pairs (name, target of a custom call or ""). Runs as a separate process with
jaxlib only, because some input makes the parser of MLIR bytecode end its process.
"""

import json
import sys

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

CUSTOM_CALL = "stablehlo.custom_call"
"""Name of the custom call operation."""


def main() -> None:
    """Prints the operations of the graph on stdin as a JSON list of [name, target of a custom call or ""].

    The list is sorted and has each different pair once, from any depth of the graph. Exits with status 1 and
    one line on stderr if the bytes are not a graph.
    """
    operations = set()

    def record_operation(operation: ir.Operation) -> ir.WalkResult:
        target = ""
        if operation.name == CUSTOM_CALL:
            target = ir.StringAttr(operation.attributes["call_target_name"]).value
        operations.add((operation.name, target))
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        stablehlo.register_dialect(context)
        try:
            stablehlo.deserialize_portable_artifact(context, sys.stdin.buffer.read()).operation.walk(
                record_operation
            )
        except Exception as error:  # the errors of MLIR have no common class
            sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    json.dump(sorted(operations), sys.stdout)


if __name__ == "__main__":
    main()
