"""Every cluster template is filled in by a dry run, is valid, and starts what was asked for."""

import json
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from emofuse_jax.cli.main import run_with_error_messages
from emofuse_jax.parallel.preemption import RESTART_EXIT_CODE, Preempted

JOB_FLAG = "--job=train --config=am_fbp '--config.data.path=/data/of two' --workdir=/runs/one"
TPU_POD_FLAGS = ("--slice=slice-1", "--zone=us-central1-a")
JOBSET_FLAGS = ("--image=registry/emofuse:1", "--topology=4x4")


def dry_run(*flags):
    command = [sys.executable, "-m", "emofuse_jax.cli", "cluster", *flags, "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def fill_template(kind, *flags):
    status, out, err = dry_run(f"--kind={kind}", JOB_FLAG, *flags)
    assert status == 0, err
    text, last_line = out.rstrip().rsplit("\n", 1)
    assert last_line.startswith("command to start it: ")
    assert "@" not in text.replace("TERM@180", "")
    return text, last_line


def check_shell(text):
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_slurm():
    text, last_line = fill_template("slurm", "--hosts=4", "--devices=8", "--name=my-run")
    check_shell(text)
    for line in ("--nodes=4", "--gpus-per-node=8", "--job-name=my-run", "--signal=TERM@180"):
        assert f"#SBATCH {line}\n" in text
    assert last_line.endswith("sbatch FILE")
    srun_command = shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")))
    assert srun_command == ["srun", "emofuse", *shlex.split(JOB_FLAG.removeprefix("--job="))]


ABORT_EXIT_CODE = 128 + signal.SIGABRT
"""As a shell says it."""


def test_slurm_starts_again_on_75_and_where_jax_aborted(tmp_path):
    """The script with srun and scontrol in place of Slurm's."""
    text, _ = fill_template("slurm")
    for status, should_restart in (
        (RESTART_EXIT_CODE, True),
        (ABORT_EXIT_CODE, True),
        (0, False),
        (2, False),
    ):
        for name, line in (("srun", f"exit {status}"), ("scontrol", f'echo "$@" > {tmp_path}/asked')):
            (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
            (tmp_path / name).chmod(0o755)
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
        assert subprocess.run(["bash", "-c", text], env=env).returncode == status
        assert (tmp_path / "asked").exists() is should_restart
        (tmp_path / "asked").unlink(missing_ok=True)


def test_jobset():
    text, last_line = fill_template("jobset", *JOBSET_FLAGS, "--hosts=4", "--devices=4", "--restarts=7")
    jobset = yaml.safe_load(text)
    assert jobset["kind"] == "JobSet"
    assert jobset["spec"]["failurePolicy"] == {"maxRestarts": 7}
    hosts = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert hosts["parallelism"] == hosts["completions"] == 4
    pod = hosts["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    (container,) = pod["containers"]
    assert container["command"][:2] == ["emofuse", "train"]
    assert "--config.data.path=/data/of two" in container["command"]
    assert container["resources"]["limits"]["google.com/tpu"] == 4
    assert last_line.endswith("kubectl apply -f FILE")
    json.dumps(jobset)


@pytest.mark.parametrize("status", [RESTART_EXIT_CODE, ABORT_EXIT_CODE])
def test_tpu_pod(tmp_path, status):
    """The script with a gcloud in place of Google's: another start, then 0."""
    text, _ = fill_template("tpu_pod", *TPU_POD_FLAGS)
    check_shell(text)
    fake_gcloud = tmp_path / "gcloud"
    fake_gcloud.write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n[ -e {tmp_path}/again ] && exit 0\n'
        f"touch {tmp_path}/again\nexit {status}\n"
    )
    fake_gcloud.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert subprocess.run(["bash", "-c", text.replace("sleep 30", "sleep 0")], env=env).returncode == 0
    gcloud_calls = (tmp_path / "asked").read_text().splitlines()
    assert len(gcloud_calls) == 2
    assert "slice-1 --zone=us-central1-a --worker=all --command=emofuse train" in gcloud_calls[0]
    assert gcloud_calls[0].endswith("--coordinator_address=auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kind=slurm", "--job=predict --bundle=x"), "expected a job that begins with train or crossval"),
        (("--kind=slurm", "--job=train --config=am_fbp"), "expected --workdir=DIR"),
        (("--kind=jobset", JOB_FLAG), "--kind=jobset needs --"),
        (("--kind=tpu_pod", JOB_FLAG), "--kind=tpu_pod needs --"),
        (("--kind=slurm", JOB_FLAG, "--name=No_Good"), "lower-case letters, digits and hyphens"),
        (("--kind=slurm",), "usage: emofuse cluster"),
    ],
)
def test_a_missing_flag_is_one_line(words, message):
    status, out, err = dry_run(*words)
    assert status == 2
    assert not out
    assert err.startswith("emofuse: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="Slurm is here: it would start a job")
def test_without_the_cluster_s_program_the_file_is_named():
    command = [sys.executable, "-m", "emofuse_jax.cli", "cluster", "--kind=slurm", JOB_FLAG]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "sbatch: command not found; the filled-in template is /" in done.stderr


def test_a_run_that_was_told_to_stop_exits_with_75(capsys):
    def program(argv):
        raise Preempted("DIR: stopped by SIGTERM, saved at step 7; run the same command to resume")

    assert run_with_error_messages(program, []) == RESTART_EXIT_CODE
    assert capsys.readouterr().err == (
        "emofuse: DIR: stopped by SIGTERM, saved at step 7; run the same command to resume\n"
    )
