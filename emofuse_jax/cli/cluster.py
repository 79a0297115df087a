"""Starts a run on a cluster; the job is restarted and resumes after the cluster preempts it.

    emofuse cluster --kind=slurm --hosts=4 --devices=8 --job="train --config=am_fbp --workdir=DIR" --dry_run
    emofuse cluster --kind=jobset --hosts=4 --devices=4 --accelerator=tpu-v5-lite-podslice --topology=4x4 \\
        --image=REGISTRY/emofuse:TAG --job="crossval --config=features --workdir=DIR" --dry_run
    emofuse cluster --kind=tpu_pod --slice=NAME --zone=ZONE --job="train --config=am_fbp --workdir=DIR"

--dry_run prints the script or manifest and the command that would start it, and starts nothing.

A process that receives SIGTERM saves a checkpoint and exits with status 75
(emofuse_jax/parallel/preemption.py). The Slurm and TPU pod templates restart the job after status 75, and
after status 134, with which JAX aborts if another host stops responding. GKE restarts it after any failure.
The hosts find each other through the cluster's environment.
"""

import json
import re
import shlex
import string
import subprocess
import tempfile
from collections.abc import Sequence

from absl import flags

from emofuse_jax.utils.data_folders import package_data_folder

CLUSTER_KINDS = {
    "slurm": ("slurm.sh", ("sbatch",)),
    "jobset": ("jobset.yaml", ("kubectl", "apply", "-f")),
    "tpu_pod": ("tpu_pod.sh", ("bash",)),
}
"""Template file of each kind of cluster, and the command that starts it."""
SUPPORTED_VERBS = ("train", "crossval")
"""Verbs that a job may run."""

KIND = flags.DEFINE_enum("kind", None, sorted(CLUSTER_KINDS), "Kind of cluster.")
JOB = flags.DEFINE_string(
    "job", None, "Verb (train or crossval) and its flags, as after `emofuse`; needs --workdir."
)
NAME = flags.DEFINE_string("name", "emofuse", "Name of the job.")
HOSTS = flags.DEFINE_integer("hosts", 1, "Number of hosts.", lower_bound=1)
DEVICES_PER_HOST = flags.DEFINE_integer("devices", 8, "Number of GPUs or TPU chips per host.", lower_bound=1)
CORES_PER_HOST = flags.DEFINE_integer("cores", 16, "Number of CPU cores per host, for slurm.", lower_bound=1)
MAX_HOURS = flags.DEFINE_integer("hours", 24, "Time limit of the job in hours, for slurm.", lower_bound=1)
MAX_RESTARTS = flags.DEFINE_integer("restarts", 100, "Maximum number of restarts.", lower_bound=0)
IMAGE = flags.DEFINE_string("image", "", "Container image with emofuse, for jobset.")
ACCELERATOR = flags.DEFINE_string(
    "accelerator", "tpu-v5-lite-podslice", "Name of the TPU type in GKE, for jobset."
)
TOPOLOGY = flags.DEFINE_string("topology", "", "Shape of the TPU slice, such as 4x4, for jobset.")
SLICE = flags.DEFINE_string("slice", "", "Name of the TPU VM or queued resource, for tpu_pod.")
ZONE = flags.DEFINE_string("zone", "", "Zone of the TPU VM, for tpu_pod.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the script or manifest, and start nothing.")


def main(argv: Sequence[str]) -> int | None:
    """Fills in the template of --kind with the other flags, and starts it or, with --dry_run, prints it.

    The filled-in template is a temporary file that is not removed. It is started with `sbatch` (slurm),
    `kubectl apply -f` (jobset) or `bash` (tpu_pod). With --dry_run, nothing is written; the start command is
    printed too. `argv` has the name of the program and the words that are no flags; none are allowed.

    Returns:
      The exit status of the start command; None with --dry_run.

    Raises:
      ValueError: a flag is missing or invalid, or the start command is not installed.
      OSError: the template cannot be read, or the filled-in template cannot be written or started.
    """
    if argv[1:] or not (KIND.value and JOB.value):
        raise ValueError(
            "expected --kind and --job and no other words; usage: emofuse cluster --kind=KIND"
            " --job='train ...'; see emofuse cluster --help"
        )
    text = render_template(KIND.value, template_values())
    _, start_command = CLUSTER_KINDS[KIND.value]
    if DRY_RUN.value:
        print(text)
        print(f"command to start it: {' '.join(start_command)} FILE")
        return None
    with tempfile.NamedTemporaryFile("w", suffix=f"-{CLUSTER_KINDS[KIND.value][0]}", delete=False) as file:
        file.write(text)
    try:
        return subprocess.run([*start_command, file.name], check=False).returncode
    except FileNotFoundError:
        raise ValueError(
            f"{start_command[0]}: command not found; the filled-in template is {file.name}; start it"
            " where the command is installed"
        ) from None


def template_values() -> dict[str, object]:
    """Returns the value of each template field by name, taken from the flags.

    The names are `name`, `command`, `hosts`, `devices`, `cores`, `hours`, `restarts`, `image`, `accelerator`,
    `topology`, `slice` and `zone`. `hosts` to `restarts` are integers, the others texts; `command` is the job
    with `emofuse` before it. Raises ValueError if --job does not begin with train or crossval, has no
    --workdir or an open quote, or if --name is invalid.
    """
    job_arguments = shlex.split(JOB.value)
    if not job_arguments or job_arguments[0] not in SUPPORTED_VERBS:
        raise ValueError(
            f"--job={JOB.value!r}: expected a job that begins with {' or '.join(SUPPORTED_VERBS)}"
        )
    if not any(argument.startswith("--workdir=") for argument in job_arguments):
        raise ValueError(f"--job={JOB.value!r}: expected --workdir=DIR with a directory that all hosts share")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?", NAME.value):
        raise ValueError(
            f"--name={NAME.value}: expected a lower-case letter, then at most 41 lower-case letters, digits"
            " and hyphens, with no hyphen at the end"
        )
    return {
        "name": NAME.value,
        "command": shlex.join(["emofuse", *job_arguments]),
        "hosts": HOSTS.value,
        "devices": DEVICES_PER_HOST.value,
        "cores": CORES_PER_HOST.value,
        "hours": MAX_HOURS.value,
        "restarts": MAX_RESTARTS.value,
        "image": IMAGE.value,
        "accelerator": ACCELERATOR.value,
        "topology": TOPOLOGY.value,
        "slice": SLICE.value,
        "zone": ZONE.value,
    }


def render_template(kind: str, values: dict[str, object]) -> str:
    """Returns the text of the filled-in template of a kind of cluster.

    Args:
      kind: `slurm`, `jobset` or `tpu_pod`.
      values: value of each template field by name, as `template_values` returns them.

    Raises:
      ValueError: a flag that the template needs is empty; the message names the flag.
      OSError: the template cannot be read.
      KeyError: the kind is unknown, or `values` lacks a field of the template or `command`.
    """
    name, _ = CLUSTER_KINDS[kind]
    template = AtSignTemplate(
        (package_data_folder("cluster_templates", "launch/cluster") / name).read_text(encoding="utf-8")
    )
    for field in template.get_identifiers():
        if values.get(field) == "":
            raise ValueError(f"--kind={kind} needs --{field}, which is empty; set it")
    substitutions = {
        k: _to_yaml_list(v) if k == "command" and kind == "jobset" else v for k, v in values.items()
    }
    substitutions["quoted_command"] = shlex.quote(f"{values['command']} --coordinator_address=auto")
    return template.substitute(substitutions)


class AtSignTemplate(string.Template):
    """Template with fields written as `@name@`, because `$` belongs to the shell."""

    delimiter = "@"
    pattern = r"@(?:(?P<named>[a-z_]+)@|(?P<escaped>@)|(?P<braced>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]  # typeshed types the compiled pattern


def _to_yaml_list(command: object) -> str:
    """Returns the words of a command as the text of a YAML list, such as `["emofuse", "train"]`.

    Raises ValueError if a quote in the command is not closed.
    """
    return json.dumps(shlex.split(str(command)))
