"""Start a run on a cluster; when the cluster takes it back, the job is started again and goes on.

    emofuse cluster --kind=slurm --hosts=4 --devices=8 --job="train --config=am_fbp --workdir=DIR" --dry_run
    emofuse cluster --kind=jobset --hosts=4 --devices=4 --accelerator=tpu-v5-lite-podslice --topology=4x4 \\
        --image=REGISTRY/emofuse:TAG --job="crossval --config=features --workdir=DIR" --dry_run
    emofuse cluster --kind=tpu_pod --slice=NAME --zone=ZONE --job="train --config=am_fbp --workdir=DIR"

--dry_run prints the script or manifest, and the command that would start it. A process that gets SIGTERM
saves and exits with 75 (emofuse_jax/parallel/preemption.py), after which the templates start the job again,
as after 134, JAX's end where a host fell silent; GKE does so after any failure. Hosts find each other by what
the cluster tells them.
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
"""Template, and the words before its path that start it."""
SUPPORTED_VERBS = ("train", "crossval")

KIND = flags.DEFINE_enum("kind", None, sorted(CLUSTER_KINDS), "Which cluster.")
JOB = flags.DEFINE_string("job", None, "The verb and its flags, as after `emofuse`.")
NAME = flags.DEFINE_string("name", "emofuse", "Name of the job.")
HOSTS = flags.DEFINE_integer("hosts", 1, "Number of hosts.", lower_bound=1)
DEVICES_PER_HOST = flags.DEFINE_integer("devices", 8, "GPUs or TPU chips of a host.", lower_bound=1)
CORES_PER_HOST = flags.DEFINE_integer("cores", 16, "CPU cores of a host's task.", lower_bound=1)
MAX_HOURS = flags.DEFINE_integer("hours", 24, "Longest time of a Slurm job.", lower_bound=1)
MAX_RESTARTS = flags.DEFINE_integer("restarts", 100, "How often a job is started again.", lower_bound=0)
IMAGE = flags.DEFINE_string("image", "", "Container image with emofuse, for jobset.")
ACCELERATOR = flags.DEFINE_string("accelerator", "tpu-v5-lite-podslice", "GKE's name of the chips.")
TOPOLOGY = flags.DEFINE_string("topology", "", "Slice, such as 4x4, for jobset.")
SLICE = flags.DEFINE_string("slice", "", "Name of the TPU VM or queued resource, for tpu_pod.")
ZONE = flags.DEFINE_string("zone", "", "Its zone.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would start, and start nothing.")


def main(argv: Sequence[str]) -> int | None:
    """Fills in the template, and starts it or prints it."""
    if argv[1:] or not (KIND.value and JOB.value):
        raise ValueError("usage: emofuse cluster --kind=KIND --job='train ...'; see emofuse cluster --help")
    text = render_template(KIND.value, template_values())
    _, start_command = CLUSTER_KINDS[KIND.value]
    if DRY_RUN.value:
        print(text)
        print(f"would start it by: {' '.join(start_command)} FILE")
        return None
    with tempfile.NamedTemporaryFile("w", suffix=f"-{CLUSTER_KINDS[KIND.value][0]}", delete=False) as file:
        file.write(text)
    try:
        return subprocess.run([*start_command, file.name], check=False).returncode
    except FileNotFoundError:
        raise ValueError(
            f"{start_command[0]}: not on this machine; the filled-in template is {file.name}"
        ) from None


def template_values() -> dict[str, object]:
    """The values of the template's fields; ValueError where the job is none."""
    job_arguments = shlex.split(JOB.value)
    if not job_arguments or job_arguments[0] not in SUPPORTED_VERBS:
        raise ValueError(f"--job={JOB.value!r}: expected to begin with one of {', '.join(SUPPORTED_VERBS)}")
    if not any(argument.startswith("--workdir=") for argument in job_arguments):
        raise ValueError(f"--job={JOB.value!r}: needs --workdir=DIR, which all hosts share")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?", NAME.value):
        raise ValueError(f"--name={NAME.value}: expected up to 42 small letters, digits and hyphens")
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
    """The filled-in template; ValueError names a flag that it needs and that is empty."""
    name, _ = CLUSTER_KINDS[kind]
    template = AtSignTemplate(
        (package_data_folder("cluster_templates", "launch/cluster") / name).read_text(encoding="utf-8")
    )
    for field in template.get_identifiers():
        if values.get(field) == "":
            raise ValueError(f"--kind={kind} needs --{field}")
    substitutions = {
        k: _to_yaml_list(v) if k == "command" and kind == "jobset" else v for k, v in values.items()
    }
    substitutions["quoted_command"] = shlex.quote(f"{values['command']} --coordinator_address=auto")
    return template.substitute(substitutions)


class AtSignTemplate(string.Template):
    """Fields are `@name@`: `$` is the shell's."""

    delimiter = "@"
    pattern = r"@(?:(?P<named>[a-z_]+)@|(?P<escaped>@)|(?P<braced>(?!))|(?P<invalid>(?!)))"


def _to_yaml_list(command: object) -> str:
    """A list of strings in YAML's flow style, which is JSON's."""
    return json.dumps(shlex.split(str(command)))
