"""benchmarks/gpu.sh: time limits, suites that fail or hang, the profile's parser, missing wheels."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from benchmarks import gpu, missing_wheels, operation_profile

WRITE_LINES = """
import json, sys
path = sys.argv[-1].removeprefix("--lines=")
file = open(path, "w", buffering=1)
file.write(json.dumps({"rows": {"case": "first"}}) + "\\n")
"""
"""Beginning of a process that stands for a suite: it writes one row."""
GPU_PROFILE = """
planes {
  name: "/device:GPU:0"
  lines { name: "Stream #7(Compute)"
    events { metadata_id: 1 duration_ps: 4000000 stats { metadata_id: 1 str_value: "fusion.1" } }
    events { metadata_id: 2 duration_ps: 1000000 stats { metadata_id: 1 str_value: "fusion.1" } }
    events { metadata_id: 3 duration_ps: 2000000 }
    events { metadata_id: 2 duration_ps: 9000000 stats { metadata_id: 1 str_value: "while.3" } } }
  lines { name: "XLA Ops" events { metadata_id: 1 duration_ps: 7000000 } }
  event_metadata { key: 1 value { id: 1 name: "kernel_a" } }
  event_metadata { key: 2 value { id: 2 name: "kernel_b" } }
  event_metadata { key: 3 value { id: 3 name: "MemcpyD2D" } }
  stat_metadata { key: 1 value { id: 1 name: "hlo_op" } } }
planes {
  name: "/host:CPU"
  lines { name: "python" events { metadata_id: 1 duration_ps: 5 stats { metadata_id: 1 str_value: "no" } } }
  event_metadata { key: 1 value { id: 1 name: "host" } }
  stat_metadata { key: 1 value { id: 1 name: "hlo_op" } } }
"""
HLO = """
ENTRY %main (p0: f32[4,4]) -> (f32[4,4]) {
  %fusion.1 = f32[4,4]{1,0} fusion(%p0), kind=kLoop, metadata={op_name="jit(step)/tanh" stack_frame_id=1}
  %custom-call.2 = (f32[4]{0}, u8[16]{0}) custom-call(%fusion.1), custom_call_target="x"
  ROOT tuple.4 = (f32[4,4]{1,0}) tuple(%fusion.1)
}
"""


def run_code(code, limit_seconds=30.0):
    return gpu.run_suite([sys.executable, "-c", WRITE_LINES + code], limit_seconds)


def test_a_suite_that_fails_keeps_its_rows_and_its_error():
    status, lines = run_code('file.write("{half a li"); sys.exit("no such device")')
    assert status["status"] == "failed"
    assert status["error"].startswith("exit status 1: ")
    assert "no such device" in status["error"]
    assert lines == [{"rows": {"case": "first"}}]


def have_ended(pids):
    """Waits until all processes have ended, some seconds at most; a zombie counts as one that has."""
    statuses = [pathlib.Path("/proc", pid, "status") for pid in pids]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            statuses = [path for path in statuses if path.exists() and "State:\tZ" not in path.read_text()]
        if not statuses:
            return True
        time.sleep(0.1)
    return False


def test_a_suite_that_hangs_is_stopped_with_its_children(tmp_path):
    pid_path = tmp_path / "pid"
    code = "import subprocess, time; child = subprocess.Popen(['sleep', '600'])\n"
    code += f"open({str(pid_path)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    start_time = time.monotonic()
    status, lines = run_code(code, 3.0)
    assert time.monotonic() - start_time < 15
    assert (status["status"], status["error"]) == ("stopped", "time limit of 3 s")
    assert lines == [{"rows": {"case": "first"}}]
    assert have_ended([pid_path.read_text()])


def test_the_budget_shortens_and_then_skips_suites():
    assert gpu.Budget(time.monotonic() + 1000).limit(90) == 90
    assert gpu.Budget(time.monotonic() + 50).limit(90) == pytest.approx(50 - gpu.MARGIN_SECONDS, abs=1)
    assert gpu.Budget(time.monotonic() + gpu.MIN_SECONDS).limit(90) == 0
    status, lines = run_code("", 0.0)
    assert (status["status"], lines) == ("skipped", [])


def test_the_file_has_all_other_suites_at_any_time(tmp_path):
    results, output = {"machine": {}, "suites": {}, "rows": []}, tmp_path / "new" / "gpu.json"
    for name, code in {"check": "", "fbp": "sys.exit(3)", "serve": ""}.items():
        gpu.add_results(results, name, *run_code(code))
        gpu.write_json(str(output), results)
        stored = json.loads(output.read_text())
        assert list(stored["suites"])[-1] == name
    assert [suite["status"] for suite in stored["suites"].values()] == ["complete", "failed", "complete"]
    assert stored["rows"] == [{"suite": name, "case": "first"} for name in ("check", "fbp", "serve")]


def test_sections_of_the_results():
    results = {"machine": {"cores": 2}, "suites": {}, "rows": []}
    check = {"check": "a", "passed": True}
    lines = [{"device": {"kind": "x"}}, {"checks": check}, {"checks": check}, {"profile": {"calls": 1}}]
    gpu.add_results(results, "check", {"status": "complete"}, lines)
    assert results["machine"] == {"cores": 2, "device": {"kind": "x"}}
    assert results["checks"] == [check, check]
    assert results["profile"] == {"calls": 1}


def test_the_command_without_time(tmp_path):
    output = tmp_path / "gpu.json"
    options = ["--budget_seconds=5", f"--workdir={tmp_path}", f"--output={output}", "--suite=fbp,serve"]
    process = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options])
    assert process.returncode == 1
    stored = json.loads(output.read_text())
    assert {name: suite["status"] for name, suite in stored["suites"].items()} == dict.fromkeys(
        ["fbp", "serve"], "skipped"
    )
    assert "jax" in stored["machine"]["versions"]


def test_a_command_that_is_terminated_stops_its_suite(tmp_path):
    options = [f"--workdir={tmp_path}", f"--output={tmp_path / 'gpu.json'}", "--suite=check", "--dry"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", *options], env=environment)

    def suite_pids():
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return children.read_text().split()

    deadline = time.monotonic() + 15
    while not (pids := suite_pids()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(15) == 143
    assert pids
    assert have_ended(pids)


def test_a_gpu_profile_counts_streams_alone():
    profile = ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(GPU_PROFILE))
    operations = operation_profile.sum_operations(profile)
    assert operations == {"fusion.1": (2, pytest.approx(5e-6)), "MemcpyD2D": (1, pytest.approx(2e-6))}
    summary = operation_profile.summarize(operations, operation_profile.describe_operations(HLO), 2, 1)
    assert summary["device_seconds_per_call"] == pytest.approx(3.5e-6)
    assert summary["operation_count"] == 2
    (longest,) = summary["operations"]
    assert (longest["operation"], longest["opcode"], longest["source"]) == (
        "fusion.1",
        "fusion",
        "jit(step)/tanh",
    )
    assert longest["count_per_call"] == 1
    assert longest["share"] == pytest.approx(5 / 7)


def test_operations_are_described_from_the_text_of_the_program():
    assert operation_profile.describe_operations(HLO) == {
        "fusion.1": {"opcode": "fusion", "result": "f32[4,4]{1,0}", "source": "jit(step)/tanh"},
        "custom-call.2": {"opcode": "custom-call", "result": "(f32[4]{0}, u8[16]{0})", "source": None},
        "tuple.4": {"opcode": "tuple", "result": "(f32[4,4]{1,0})", "source": None},
    }


def test_a_real_profile():
    compiled = jax.jit(lambda x: jnp.tanh(x @ x).sum()).lower(jnp.ones((256, 256))).compile()
    x = jnp.ones((256, 256))
    profile = operation_profile.profile_operations(
        lambda: compiled(x).block_until_ready(), compiled.as_text(), calls=3
    )
    assert profile["calls"] == 3
    assert profile["device_seconds_per_call"] > 0
    assert sum(row["share"] for row in profile["operations"]) == pytest.approx(1)
    assert all(row["opcode"] for row in profile["operations"])
    assert any((row["source"] or "").startswith("jit(") for row in profile["operations"])


def test_only_missing_wheels_are_installed(tmp_path):
    for name in ("jax-0.1-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl", "readme.txt"):
        (tmp_path / name).touch()
    names = [path.name for path in missing_wheels.missing_wheels(str(tmp_path))]
    assert names == ["no_such_package-1.0-py3-none-any.whl"]
