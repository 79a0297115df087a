"""The wheel, installed into an empty directory, trains two steps by a shipped config's name."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.fakes import write_dataset

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source_copy = folder / "tree"  # what an earlier build left in the clone must not get in
    unwanted = shutil.ignore_patterns(".venv", ".git", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source_copy, ignore=unwanted)
    build_command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source_copy)]
    subprocess.run(build_command, check=True, capture_output=True, text=True, timeout=300)
    return str(next(folder.glob("*.whl")))


def test_it_holds_all_packages_and_their_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "emofuse_jax/training/loop.py",
        "emofuse_jax/reporting/templates/report.html",
        "emofuse_jax/data/writing/protocols/ravdess_6fold.json",
        "emofuse_jax/shipped/am_fbp.py",
        "emofuse_jax/cluster_templates/slurm.sh",
    ):
        assert name in names
    assert not [name for name in names if name.startswith("tests/")]


def test_installed_elsewhere_it_trains_two_steps(wheel, tmp_path):
    site_packages, empty_folder = tmp_path / "site", tmp_path / "empty"
    empty_folder.mkdir()
    pip_command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site_packages),
        wheel,
    ]
    subprocess.run(pip_command, check=True, capture_output=True, timeout=300)
    records = write_dataset(str(tmp_path / "records"))
    flags = ["data.path=" + records, "data.batch_size=8", "data.audio_steps=140", "augment.frames=3"]
    flags += ["train.epochs=1", "train.eval_batch_size=8"]
    code = "import emofuse_jax.cli.main as m, sys; print(m.__file__, file=sys.stderr); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--config=demo:am_fbp", "--workdir=run"]
        + [f"--config.{flag}" for flag in flags],
        cwd=empty_folder,
        env={**os.environ, "PYTHONPATH": str(site_packages), "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(site_packages) in done.stderr
    assert '"best_step": 2' in done.stdout
