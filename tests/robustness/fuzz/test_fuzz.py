"""The fuzz run in small, and the driver that a run leans on (python -m tests.robustness.fuzz.run)."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.robustness.fuzz import log
from tests.robustness.fuzz.kinds import bundles, configs
from tests.robustness.fuzz.run import KIND_PERCENTS, count_inputs, run_fuzz
from tests.robustness.fuzz.values import HOSTILE_VALUES, json_bytes, mutate_tree

KINDS = [kind for kind in KIND_PERCENTS if kind != "media"]
"""Media have a test of their own (tests/robustness/data_prep/test_hostile_media.py)."""


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [*((kind, 20) for kind in KINDS), *(pytest.param(kind, 1000, marks=pytest.mark.long) for kind in KINDS)],
)
def test_no_input_is_more_than_refused(kind, inputs, tmp_path):
    summary = run_fuzz(str(tmp_path / "fuzz.json"), [kind], inputs, workers=1 if inputs < 1000 else 2)
    check_summary(summary, inputs)


def check_summary(summary, inputs):
    assert summary["failures"] == [], json.dumps(summary["failures"][:3])[:3000]
    (kind,) = summary["kinds"].values()
    refused = sum(error["count"] for error in kind["refused"].values())
    assert (summary["inputs"], kind["accepted"] + refused) == (inputs, inputs)
    assert refused > inputs // 20  # what is damaged is noticed


def test_the_outcome_of_each_input_is_recognised(tmp_path):
    summary = run_fuzz(str(tmp_path / "fuzz.json"), ["planted"], 12, workers=2, timeout_seconds=8.0)
    lines_by_seed = {line["seed"]: line for line in log.read_lines(str(tmp_path / "fuzz.jsonl"))}
    statuses = {seed: line["status"] for seed, line in lines_by_seed.items()}
    accepted = dict.fromkeys((0, 9, 11), "accepted")
    failed = {
        1: "crash",
        2: "hang",
        3: "memory",
        4: "crash",
        6: "crash",
        7: "escape",
        8: "escape",
        10: "crash",
    }
    assert statuses == accepted | failed | {5: "refused"}
    assert (lines_by_seed[1]["error"], lines_by_seed[10]["error"]) == ("SIGSEGV", "exit code 3")
    assert lines_by_seed[4]["message"].startswith("'a' (planted.py:")
    assert lines_by_seed[6]["error"] == "ValueError: names neither file nor field"
    assert (summary["crashes"], summary["hangs"]) == (7, 1)
    assert summary["kinds"]["planted"]["refused"] == {
        "ValueError: field a: N, expected N": {"count": 1, "example": "field a: 1, expected 2"}
    }


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_stood(tmp_path):
    output = tmp_path / "fuzz.json"
    command = [
        sys.executable,
        "-m",
        "tests.robustness.fuzz.run",
        f"--output={output}",
        "--kinds=prepared",
        "--inputs=300",
    ]
    lines = tmp_path / "fuzz.jsonl"
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 120
        while not lines.exists() or lines.read_bytes().count(b"\n") < 30:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
    before = lines.read_bytes()
    complete_lines = before[: before.rfind(b"\n") + 1]
    assert not output.exists()
    lines.write_bytes(complete_lines + b'{"kind": "prep')  # as a kill in the middle of a write leaves it
    command[-1] = f"--inputs={max(json.loads(line)['seed'] for line in complete_lines.splitlines()) + 20}"
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert lines.read_bytes().startswith(complete_lines)
    summary = json.loads(output.read_text())
    seeds = sorted(line["seed"] for line in log.read_lines(str(lines)))
    assert seeds == list(range(summary["inputs"]))


def test_equal_seeds_give_equal_inputs(tmp_path):
    tree = {"a": [1, 2.0, "x"], "b": {"c": {"d": None}}, "e": True}
    made = [[json_bytes(tree, configs.make_rng("configs", seed)) for seed in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert len({*made[0]}) > 150
    assert tree == {"a": [1, 2.0, "x"], "b": {"c": {"d": None}}, "e": True}
    hostile_before = repr(HOSTILE_VALUES)
    for seed in range(200):
        mutate_tree([tree, []], bundles.make_rng("bundles", seed))
    assert repr(HOSTILE_VALUES) == hostile_before


def test_every_input_belongs_to_a_kind():
    assert sum(KIND_PERCENTS.values()) == 100
    assert count_inputs(list(KIND_PERCENTS), 10_000)["media"] == 2000
    assert sum(count_inputs(["records", "http"], 101).values()) == 101
