"""Imports flow one way (design.md, "Layout"), and the package is light to import."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from emofuse_jax.cli.main import VERBS

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("emofuse_jax", "data_prep", "configs", "launch")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Module prefix: what it must not import, at any level of any function.
FORBIDDEN = {
    "emofuse_jax.types": ("emofuse_jax.",),
    "emofuse_jax.ops": ("emofuse_jax.models", "emofuse_jax.train", "emofuse_jax.data", "emofuse_jax.losses"),
    "emofuse_jax.models": ("emofuse_jax.train", "emofuse_jax.data", "emofuse_jax.losses"),
    "emofuse_jax.objectives": ("emofuse_jax.models", "emofuse_jax.train", "emofuse_jax.data"),
    "emofuse_jax.losses": ("emofuse_jax.models", "emofuse_jax.train", "emofuse_jax.data"),
    "emofuse_jax.metrics": ("emofuse_jax.models", "emofuse_jax.train", "emofuse_jax.data"),
    "emofuse_jax.data": ("emofuse_jax.models", "emofuse_jax.train", "data_prep"),
    "emofuse_jax.train": ("emofuse_jax.serving", "data_prep"),
    "emofuse_jax.serving.bundle": (
        "emofuse_jax.models",
        "emofuse_jax.train",
        "emofuse_jax.data",
        "data_prep",
    ),
    "emofuse_jax.serving.predictor": ("emofuse_jax.models", "emofuse_jax.train"),
    "emofuse_jax": ("launch", "configs"),
    "data_prep": ("launch", "configs", "emofuse_jax."),
}
ALLOWED = {
    "data_prep": (
        "emofuse_jax.data",
        "emofuse_jax.data.records",
        "emofuse_jax.onnx_files",
        "emofuse_jax.host",
        "emofuse_jax.npz",
        "emofuse_jax.told",
    )
}
ONLY_IN = {
    "flax": ("emofuse_jax.models",),
    "orbax": ("emofuse_jax.train.checkpoint",),
    "grain": ("emofuse_jax.data",),
    "librosa": ("data_prep",),
    "av": ("data_prep",),
    "cv2": ("data_prep",),
    "onnxruntime": ("data_prep.encoders", "emofuse_jax.serving.onnx_model"),
    "jax2onnx": ("emofuse_jax.serving.onnx_model",),
    "pandas": ("emofuse_jax.serving.answers",),
    "fastapi": ("emofuse_jax.serving.app", "emofuse_jax.serving.problems"),
    "tensorboardX": ("emofuse_jax.train.board",),
    "prometheus_client": ("emofuse_jax.serving.measures",),
    "uvicorn": ("emofuse_jax.cli.serve",),
    "yaml": ("data_prep.onnx_layouts",),
}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def within(name: str, prefix: str) -> bool:
    return (
        name.startswith(prefix) if prefix.endswith(".") else name == prefix or name.startswith(f"{prefix}.")
    )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_flow_one_way(path):
    module = module_name(path)
    for prefix, forbidden in FORBIDDEN.items():
        if within(module, prefix):
            for name in imports(path):
                allowed = any(within(name, ok) for ok in ALLOWED.get(prefix, ())[1:])
                allowed |= name in ALLOWED.get(prefix, ())
                assert allowed or not any(within(name, bad) for bad in forbidden), f"{module} imports {name}"
    for package, homes in ONLY_IN.items():
        if not any(within(module, home) for home in homes):
            assert not any(within(name, package) for name in imports(path)), f"{module} imports {package}"


def test_verbs_are_started_and_not_imported():
    """Two verbs may have flags of one name: a process holds one of them."""
    verbs = {f"launch.{verb}" for verb in VERBS}
    for path in (*FILES, *sorted((ROOT / "tests").rglob("*.py"))):
        assert not imports(path) & verbs, path


def test_nothing_reads_pickles():
    """No pickle is read from anything a user or a download brings; joblib only behind its hash check."""
    for path in FILES:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        assert "joblib" not in names or module_name(path) == "data_prep.faces.weights", path
        text = path.read_text()
        assert "allow_pickle=True" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec"):
                raise AssertionError(f"{path}:{node.lineno} evaluates code")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("np.load"):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("allow_pickle") == "False", f"{path}:{node.lineno}"


def test_the_package_is_light_to_import():
    heavy = ("tensorflow", "librosa", "av", "cv2", "matplotlib", "flax", "orbax", "grain")
    code = (
        "import sys, emofuse_jax.types, emofuse_jax.data.records, emofuse_jax.metrics, emofuse_jax.losses\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_part_imports_without_media_and_plotting_libraries():
    code = (
        "import sys, emofuse_jax.evaluate, emofuse_jax.report, emofuse_jax.train.loop, emofuse_jax.serving\n"
        "print([m for m in ('tensorflow', 'librosa', 'av', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_does_not_import_an_installed_pytorch(tmp_path):
    """tensorboardX would; what imports it afterwards still can."""
    (tmp_path / "torch.py").write_text("print('imported')")
    code = "import emofuse_jax.train.loop; print('then'); import torch"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["then", "imported"]
