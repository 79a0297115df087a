"""A graph that asks for more than to compute is refused, in one line, when it is read."""

import pathlib
import re
import shutil
import sys

import pytest

from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format, stablehlo_check
from tests.fuzz.graphs import NESTED, PLANTED, planted
from tests.fuzz.kinds.bundles import mend


@pytest.fixture
def plant(bundle_path, tmp_path):
    """A bundle of the right hashes, whose graph begins with the lines that are given."""

    def copied(lines: str) -> str:
        path = pathlib.Path(shutil.copytree(bundle_path, str(tmp_path / "bundle")))
        (path / format.GRAPH_FILE).write_bytes(planted((path / format.GRAPH_FILE).read_bytes(), lines))
        mend(str(path))
        return str(path)

    return copied


def test_a_graph_with_a_line_more_is_still_read(plant):
    """Else what is refused below might be refused for the way it was planted."""
    assert load(plant("%planted = stablehlo.constant dense<1> : tensor<i32>")).parity() == 0.0


@pytest.mark.parametrize("asked", PLANTED)
def test_what_reaches_outside(plant, asked):
    refused(plant(PLANTED[asked]), asked)


def test_what_reaches_outside_of_a_branch(plant):
    refused(plant(NESTED), "xla_ffi_python_cpu_callback")


def test_bytes_that_end_their_parser_end_no_other_process(bundle_path, monkeypatch):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(stablehlo_check, "READER", (sys.executable, "-c", killed))
    with pytest.raises(ValueError, match=r"model\.stablehlo: .*it ends the program that reads it: SIGSEGV"):
        load(bundle_path)


def refused(path: str, asked: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*: not a graph that emofuse exports\Z") as error:
        load(path)
    told = repr(asked) if not asked.startswith("stablehlo.") else asked
    assert re.search(rf"{re.escape(path)}/model\.stablehlo: asks for (a call of )?", str(error.value))
    assert told in str(error.value)
