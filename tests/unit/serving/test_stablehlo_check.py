"""A graph that asks for more than to compute is refused, in one line, when it is read."""

import pathlib
import re
import shutil
import sys

import pytest

from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format, stablehlo_check
from tests.robustness.fuzz.graphs import FORBIDDEN_OPERATIONS, NESTED_OPERATION, plant_operations
from tests.robustness.fuzz.kinds.bundles import update_hashes


@pytest.fixture
def plant(bundle_path, tmp_path):
    """A bundle of the right hashes, whose graph begins with the lines that are given."""

    def plant_lines(lines: str) -> str:
        path = pathlib.Path(shutil.copytree(bundle_path, str(tmp_path / "bundle")))
        (path / format.GRAPH_FILE).write_bytes(
            plant_operations((path / format.GRAPH_FILE).read_bytes(), lines)
        )
        update_hashes(str(path))
        return str(path)

    return plant_lines


def test_a_graph_with_a_line_more_is_still_read(plant):
    """Else what is refused below might be refused for the way it was planted."""
    assert load(plant("%planted = stablehlo.constant dense<1> : tensor<i32>")).measure_parity() == 0.0


@pytest.mark.parametrize("operation", FORBIDDEN_OPERATIONS)
def test_what_reaches_outside(plant, operation):
    assert_refused(plant(FORBIDDEN_OPERATIONS[operation]), operation)


def test_what_reaches_outside_of_a_branch(plant):
    assert_refused(plant(NESTED_OPERATION), "xla_ffi_python_cpu_callback")


def test_bytes_that_end_their_parser_end_no_other_process(bundle_path, monkeypatch):
    killed_reader_code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(stablehlo_check, "READER_COMMAND", (sys.executable, "-c", killed_reader_code))
    with pytest.raises(ValueError, match=r"model\.stablehlo: .*the parser crashed with SIGSEGV"):
        load(bundle_path)


def assert_refused(path: str, operation: str) -> None:
    with pytest.raises(
        ValueError, match=r"\A[^\n]*; not a graph that emofuse exports, export [^\n]*\Z"
    ) as error:
        load(path)
    quoted_operation = repr(operation) if not operation.startswith("stablehlo.") else operation
    assert re.search(rf"{re.escape(path)}/model\.stablehlo: operation (custom_call )?", str(error.value))
    assert quoted_operation in str(error.value)
