"""The fuzz run in small, and the driver that a run leans on (python -m tests.fuzz.run)."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.fuzz import log
from tests.fuzz.kinds import bundles, configs
from tests.fuzz.run import SHARES, counts, fuzz
from tests.fuzz.values import HOSTILE, json_bytes, mutated

SHORT = {
    "records": 60,
    "prepared": 60,
    "configs": 40,
    "checkpoints": 30,
    "bundles": 30,
    "names": 30,
    "http": 30,
    "workdir": 60,
    "live": 30,
}
"""Media have a test of their own (tests/data_prep/test_hostile_media.py)."""


@pytest.mark.parametrize("kind", SHORT)
def test_no_input_is_more_than_refused(kind, tmp_path):
    check(fuzz(str(tmp_path / "fuzz.json"), [kind], SHORT[kind], workers=1), SHORT[kind])


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in SHARES if kind != "media"])
def test_a_thousand_inputs(kind, tmp_path):
    check(fuzz(str(tmp_path / "fuzz.json"), [kind], 1000, workers=2), 1000)


def check(found, inputs):
    assert found["failures"] == [], json.dumps(found["failures"][:3])[:3000]
    (kind,) = found["kinds"].values()
    refused = sum(error["count"] for error in kind["refused"].values())
    assert (found["inputs"], kind["accepted"] + refused) == (inputs, inputs)
    assert refused > inputs // 20  # what is damaged is noticed


def test_what_an_input_does_is_told_apart(tmp_path):
    found = fuzz(str(tmp_path / "fuzz.json"), ["planted"], 12, workers=2, seconds=8.0)
    told = {line["seed"]: line for line in log.read(str(tmp_path / "fuzz.jsonl"))}
    statuses = {seed: line["status"] for seed, line in told.items()}
    accepted = dict.fromkeys((0, 9, 11), "accepted")
    bad = {1: "crash", 2: "hang", 3: "memory", 4: "crash", 6: "crash", 7: "escape", 8: "escape", 10: "crash"}
    assert statuses == accepted | bad | {5: "refused"}
    assert (told[1]["error"], told[10]["error"]) == ("SIGSEGV", "exit code 3")
    assert told[4]["message"].startswith("'a' (planted.py:")
    assert told[6]["error"] == "ValueError: names neither file nor field"
    assert (found["crashes"], found["hangs"]) == (7, 1)
    assert found["kinds"]["planted"]["refused"] == {
        "ValueError: field a: N, expected N": {"count": 1, "example": "field a: 1, expected 2"}
    }


def test_a_killed_run_goes_on_where_it_stood(tmp_path):
    output = tmp_path / "fuzz.json"
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        f"--output={output}",
        "--kinds=prepared",
        "--inputs=300",
    ]
    lines = tmp_path / "fuzz.jsonl"
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as first:
        until = time.monotonic() + 120
        while not lines.exists() or lines.read_bytes().count(b"\n") < 30:
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
    before = lines.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert not output.exists()
    lines.write_bytes(whole + b'{"kind": "prep')  # as a kill in the middle of a write leaves it
    command[-1] = f"--inputs={max(json.loads(line)['seed'] for line in whole.splitlines()) + 20}"
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert lines.read_bytes().startswith(whole)
    found = json.loads(output.read_text())
    seeds = sorted(line["seed"] for line in log.read(str(lines)))
    assert seeds == list(range(found["inputs"]))


def test_equal_seeds_give_equal_inputs(tmp_path):
    tree = {"a": [1, 2.0, "x"], "b": {"c": {"d": None}}, "e": True}
    made = [[json_bytes(tree, configs.rng_of("configs", seed)) for seed in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert len({*made[0]}) > 150
    assert tree == {"a": [1, 2.0, "x"], "b": {"c": {"d": None}}, "e": True}
    kept = repr(HOSTILE)
    for seed in range(200):
        mutated([tree, []], bundles.rng_of("bundles", seed))
    assert repr(HOSTILE) == kept


def test_every_input_belongs_to_a_kind():
    assert sum(SHARES.values()) == 100
    assert counts(list(SHARES), 10_000)["media"] == 2000
    assert sum(counts(["records", "http"], 101).values()) == 101
