"""Installs emofuse in four ways and runs its commands in the directory of a user's own project.

The project has packages named configs, launch, tests and benchmarks, and is the first place of PYTHONPATH.
The ways share the clips and the compiled programs; the networks are tiny. On two cores that do nothing else,
nearly all of the time goes into starting processes.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile

import pytest

from tests.support.drawn_clips import make_clips
from tests.support.paths import ROOT
from tests.support.tiers import mark_others_long

UNWANTED = (".venv*", ".git", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*cache", ".emofuse-*")
"""What earlier work left in a clone, which must not get into a wheel."""
USER_PACKAGES = ("configs", "launch", "tests", "benchmarks")

OWN_CONFIG = """import emofuse_jax as ef


def get_config():
    config = ef.settings.base("am_fbp")
    config.name, config.mark_of_mine = "mine", 0
    return config
"""
OWN_AM_FBP = """import ml_collections


def get_config():
    return ml_collections.ConfigDict({"mark_of_the_users_am_fbp": 0})
"""

PREPARE = ("--corpus=folder", "--frames=3", "--face_size=16", "--workers=1")
TINY = {
    "data.path": "records",
    "data.batch_size": 1,
    "data.audio_steps": 70,
    "augment.frames": 3,
    "model.audio.widths": (4,) * 5,
    "model.video.width": 4,
    "model.video.blocks": (1, 1),
    "model.fusion.width": 16,
    "model.fusion.factors": 2,
    "train.epochs": 1,
    "train.eval_batch_size": 2,
}
"""Two steps of a small network."""

ONE_DEVICE = {"JAX_NUM_CPU_DEVICES": "1"}


@dataclasses.dataclass(frozen=True)
class Installation:
    """A way to have emofuse."""

    name: str
    python: str
    source: pathlib.Path
    """The folder that holds its packages, into which nothing may be written."""

    def command(self, verb: str) -> list[str]:
        """How a user starts a verb."""
        if self.name == "clone":
            return [self.python, str(self.source / "launch" / f"{verb}.py")]
        return [str(pathlib.Path(self.python).with_name("emofuse")), verb]

    def run(self, words: list[str], project: pathlib.Path) -> subprocess.CompletedProcess:
        """A process in the project's folder; the project's own packages come first."""
        path = [str(project), *([str(self.source)] if self.name == "clone" else [])]
        env = os.environ | ONE_DEVICE | {"PYTHONPATH": os.pathsep.join(path)}
        return subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, timeout=300)

    def emofuse(self, verb: str, *words: str, project: pathlib.Path) -> subprocess.CompletedProcess:
        """Runs a verb."""
        return self.run([*self.command(verb), *words], project)


def run_checked(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of_clone(folder: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNWANTED, "results"))


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, str]:
    """A wheel and an sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    tree = copy_of_clone(folder / "tree")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    run_checked([*build, "--wheel", str(tree)])
    run_checked([*build, "--sdist", str(tree)])
    return {"wheel": str(next(folder.glob("*.whl"))), "sdist": str(next(folder.glob("*.tar.gz")))}


def make_environment(folder: pathlib.Path) -> tuple[str, pathlib.Path]:
    """An environment of its own: its Python, and its site-packages.

    The dependencies are those of this process, found after its own packages. `.pth` files beside them, such
    as that of an editable emofuse, have no effect.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site_packages = next((folder / "lib").glob("python*")) / "site-packages"
    dependencies = [path for path in sys.path if path in site.getsitepackages() or "-packages" in path]
    (site_packages / "dependencies.pth").write_text("\n".join(dict.fromkeys(dependencies)))
    return str(python), site_packages


@pytest.fixture(scope="module", params=mark_others_long(("wheel", "sdist", "editable", "clone"), "wheel"))
def installation(request, tmp_path_factory) -> Installation:
    folder = tmp_path_factory.mktemp(request.param)
    python, site_packages = make_environment(folder / "environment")
    if request.param == "clone":
        return Installation("clone", python, copy_of_clone(folder / "clone"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--ignore-installed"]  # an emofuse among the dependencies stays there
    if request.param == "editable":
        tree = copy_of_clone(folder / "clone")
        run_checked([*pip, "--editable", str(tree)])
        return Installation("editable", python, tree)
    run_checked([*pip, request.getfixturevalue("distributions")[request.param]])
    return Installation(request.param, python, site_packages)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> pathlib.Path:
    """Two drawn films of each of three speakers, cut to their beginning."""
    return pathlib.Path(make_clips(tmp_path_factory.mktemp("films") / "clips", seconds=0.8))


@pytest.fixture
def project(tmp_path) -> pathlib.Path:
    """A user's project, whose packages are not for us to import."""
    folder = tmp_path / "project"
    for name in USER_PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('imported {name} of the user')\n")
    (folder / "configs" / "am_fbp.py").write_text(OWN_AM_FBP)
    (folder / "mine.py").write_text(OWN_CONFIG)
    return folder


def files_of(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file, other than those that Python compiles for itself."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_five_verbs(installation, clips, project):
    before = files_of(installation.source)
    verbs = {
        "prepare": [*PREPARE, f"--source={clips / 'clips.csv'}", "--output=records"],
        "train": ["--config=demo:am_fbp", "--workdir=run", *(f"--config.{k}={v}" for k, v in TINY.items())],
        "evaluate": ["--workdir=run"],
        "export": ["--workdir=run", "--output=bundle"],
        "predict": ["--bundle=bundle", "--workers=1", str(clips / "0.mp4")],
    }
    done = {}
    for verb, words in verbs.items():
        done[verb] = installation.emofuse(verb, *words, project=project)
        assert done[verb].returncode == 0, f"{verb}: {done[verb].stderr[-3000:]}"
    assert "6 kept, 0 masked, 0 failed" in done["prepare"].stdout
    assert json.loads(done["train"].stdout.splitlines()[-1])["best_step"] == 2
    assert {json.loads(line)["label"] for line in done["predict"].stdout.splitlines()} <= {"low", "high"}
    outputs = ["records/prep.json", "records/manifest.csv", "records/prep_report.html", "run/metrics.jsonl"]
    outputs += ["run/evaluation/test/results.json", "run/evaluation/test/report.html", "bundle/bundle.json"]
    for name in outputs:
        assert (project / name).stat().st_size, name
    assert files_of(installation.source) == before


EXTRAS = (
    "matplotlib",
    "tensorboardX",
    "pyarrow",
    "pandas",
    "PIL",
    "av",
    "cv2",
    "librosa",
    "soxr",
    "mtcnn",
    "fastapi",
)
"""Modules of the extras, which the base installation does not have."""
BLOCK_EXTRAS = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])

sys.meta_path.insert(0, NotInstalled())
"""


@pytest.mark.long
def test_the_program_of_the_docs_needs_no_extra(distributions, project, tmp_path):
    """Records from arrays, two fusions, a comparison and predictions, by the public API (docs/arrays.md)."""
    program = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "arrays.md").read_text(), re.DOTALL)[1]
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 25
    (project / "program.py").write_text(program)
    python, site_packages = make_environment(tmp_path / "environment")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run_checked([*pip, "--ignore-installed", distributions["wheel"]])
    (site_packages / "block_extras.py").write_text(BLOCK_EXTRAS)
    (site_packages / "block_extras.pth").write_text("import block_extras\n")
    installation = Installation("wheel", python, site_packages)
    done = installation.run([python, "program.py"], project)
    assert done.returncode == 0, done.stderr[-3000:]
    scores, comparison, predictions = done.stdout.strip().splitlines()[-3:]
    assert scores.startswith("UA 100.0 %")
    assert "points of UA" in comparison
    assert predictions.count("Prediction(") == 2
    assert done.stderr.count("not written: report.html needs matplotlib: run pip install '.[report]'") == 3


FACTS = """
import importlib.resources, importlib.util, json, emofuse_jax
facts = {"emofuse_jax": emofuse_jax.__file__, "data_prep": importlib.util.find_spec("data_prep").origin}
for name in ("shipped", "cluster_templates"):
    try:
        folder = importlib.resources.files(f"emofuse_jax.{name}")
        facts[name] = {file.name: len(file.read_bytes()) for file in folder.iterdir() if file.is_file()}
    except ModuleNotFoundError:
        facts[name] = None
print(json.dumps(facts))
"""


def test_its_own_packages_are_found(installation, project):
    done = installation.run([installation.python, "-c", FACTS], project)
    facts = json.loads(done.stdout)
    for name in ("emofuse_jax", "data_prep"):
        assert facts[name] == str(installation.source / name / "__init__.py")
    for name, folder in (("shipped", "configs"), ("cluster_templates", "launch/cluster")):
        files = {path.name: path.stat().st_size for path in (ROOT / folder).iterdir() if path.is_file()}
        assert facts[name] == (None if installation.name == "clone" else files)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--config=mine.py", "--config.mark_of_mine=1", "--config.train.epochs=1"),
            "--workdir are required",
        ),
        (("--config=configs/am_fbp.py", "--config.mark_of_the_users_am_fbp=1"), "--workdir are required"),
        (("--config=am_fbp", "--config.mark_of_the_users_am_fbp=1"), "no field 'mark_of_the_users_am_fbp'"),
    ],
    ids=["mine.py", "configs/am_fbp.py", "am_fbp"],
)
def test_which_config_is_meant(installation, project, words, message):
    """Each file has a field that no other has; without --workdir nothing is trained."""
    done = installation.emofuse("train", *words, project=project)
    assert done.returncode
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_cluster_finds_its_template(installation, project):
    words = ("--kind=slurm", "--job=train --config=am_fbp --workdir=w", "--dry_run")
    done = installation.emofuse("cluster", *words, project=project)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH" in done.stdout
    assert "emofuse train --config=am_fbp --workdir=w" in done.stdout


def test_benchmarks_need_a_clone(installation, project):
    done = installation.emofuse("benchmark", "--help", project=project)
    if installation.name in ("editable", "clone"):
        assert done.returncode == 0, done.stderr
        assert "--suite" in done.stdout
    else:
        assert done.returncode
        assert done.stderr.startswith("emofuse: the benchmarks are not installed; ")
        assert "clone" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_users_data_prep_is_named_in_one_line(installation, project):
    hiding = project / "data_prep"
    hiding.mkdir()
    if installation.name != "editable":  # whose finder comes last: any folder of that name hides ours
        (hiding / "__init__.py").write_text("raise RuntimeError('imported data_prep of the user')\n")
    done = installation.emofuse("predict", "--bundle=b", "clip.mp4", project=project)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"emofuse: {hiding}: hides the package data_prep of emofuse, which is stored in "
    )
    assert f"remove {project} from PYTHONPATH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wheel_provides_two_names(distributions):
    files = zipfile.ZipFile(distributions["wheel"]).namelist()
    top_level = sorted({name.split("/")[0] for name in files})
    print("\nthe wheel's top-level names:", *top_level)
    version = os.path.basename(distributions["wheel"]).split("-")[1]
    assert top_level == ["data_prep", f"emofuse-{version}.dist-info", "emofuse_jax"]
    for package in ("emofuse_jax", "data_prep"):
        expected = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        expected = {name for name in expected if "__pycache__" not in name}
        assert not expected - set(files)
