"""Operations of a graph: StableHLO bytes on stdin, JSON pairs of a name and a custom call's target on stdout.

A program of its own, on jaxlib alone: the parser of MLIR's bytecode ends its process over some bytes.
"""

import json
import sys

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

CUSTOM_CALL = "stablehlo.custom_call"


def main() -> None:
    """Exit status 1 and a line on stderr where the bytes are no graph."""
    operations = set()

    def record_operation(operation) -> ir.WalkResult:
        target = operation.attributes["call_target_name"].value if operation.name == CUSTOM_CALL else ""
        operations.add((operation.name, target))
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        stablehlo.register_dialect(context)
        try:
            stablehlo.deserialize_portable_artifact(context, sys.stdin.buffer.read()).operation.walk(
                record_operation
            )
        except Exception as error:  # what MLIR raises has no common class
            sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    json.dump(sorted(operations), sys.stdout)


if __name__ == "__main__":
    main()
