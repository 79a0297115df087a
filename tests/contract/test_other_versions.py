"""A bundle written here answers the same under other Pythons and the lowest and newest jax that we allow."""

import glob
import os
import shutil
import subprocess

import pytest

from tests.support.paths import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
LOWEST, NEWEST = "jax==0.10.2", "jax>=0.10.2,<0.13"
PARITY_CODE = """
import sys, jax
sys.path.insert(0, sys.argv[2])
from emofuse_jax.serving import load
print(jax.__version__, load(sys.argv[1], engine="jax").measure_parity())
"""


def find_interpreter(version: str) -> str | None:
    """On the path, or one of pyenv's."""
    pyenv_paths = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python{version}")))
    return pyenv_paths[-1] if pyenv_paths else shutil.which(f"python{version}")


@pytest.mark.long
@pytest.mark.parametrize("jax", [LOWEST, NEWEST])
@pytest.mark.parametrize("version", PYTHONS)
def test_parity(bundle_path, users_environment, tmp_path, version, jax):
    python = find_interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not here")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    venv_python = str(tmp_path / "venv" / "bin" / "python")
    needs = (jax, "numpy>=2.3,<3", "flatbuffers>=25.2.10,<26", "safetensors>=0.6.1,<0.9")
    subprocess.run([venv_python, "-m", "pip", "install", "-q", *needs], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [venv_python, "-c", PARITY_CODE, bundle_path, str(ROOT)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    jax_version, difference = done.stdout.split()
    print(version, jax_version, difference)
    assert float(difference) <= 1e-5
