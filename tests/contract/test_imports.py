"""Imports go one way, as docs/layout.md draws it, and the package is light to import."""

import ast
import os
import pathlib
import subprocess
import sys

from emofuse_jax.cli.main import VERBS
from tests.support.paths import ROOT

PACKAGES = ("emofuse_jax", "data_prep")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LAYERS = (
    ("types", "utils"),
    ("ops",),
    ("models", "losses", "data", "parallel"),
    ("settings",),
    ("scoring",),
    ("training",),
    ("planning", "reporting", "serving"),
    ("api",),
    ("cli",),
)
"""Subpackages of emofuse_jax: each imports only from earlier lines; those of one line don't import each
other."""

ALLOWED_IN_DATA_PREP = ("emofuse_jax.types", "emofuse_jax.utils", "emofuse_jax.data")
DATA_PREP_IMPORTERS = ("emofuse_jax.serving.media", "emofuse_jax.api", "emofuse_jax.cli")
BENCHMARK_IMPORTERS = ("emofuse_jax.cli.benchmark",)

ALLOWED_IMPORTERS = {
    "flax": ("emofuse_jax.models",),
    "orbax": ("emofuse_jax.training.checkpoint",),
    "grain": ("emofuse_jax.data",),
    "librosa": ("data_prep",),
    "av": ("data_prep",),
    "cv2": ("data_prep",),
    "onnxruntime": ("data_prep.onnx_models.encoders", "emofuse_jax.serving.bundle.onnx_model"),
    "jax2onnx": ("emofuse_jax.serving.bundle.onnx_model",),
    "pandas": ("emofuse_jax.serving.predictions", "emofuse_jax.api.records"),
    "matplotlib": ("emofuse_jax.reporting.figures", "emofuse_jax.api.run", "emofuse_jax.cli.demo"),
    "rich": ("emofuse_jax.reporting", "emofuse_jax.cli", "emofuse_jax.serving.prediction_table"),
    "fastapi": ("emofuse_jax.serving.http.app", "emofuse_jax.serving.http.problems"),
    "tensorboardX": ("emofuse_jax.training.metric_writer",),
    "prometheus_client": ("emofuse_jax.serving.http.prometheus",),
    "uvicorn": ("emofuse_jax.cli.serve",),
    "yaml": ("data_prep.onnx_models.layouts",),
}
"""Libraries, and the only places that import them."""


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


class TypingRemover(ast.NodeTransformer):
    """Removes `if TYPE_CHECKING:`, whose imports never run."""

    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imported_names(path: pathlib.Path) -> set[str]:
    """Everything that a file imports when it runs, at any level of any function."""
    names = set()
    for node in ast.walk(TypingRemover().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "require_package":
            names.add(node.args[0].value)
    return names


def imported_modules(module: str) -> set[str]:
    """Our own modules that a module imports; a package that only leads to one of them does not count."""
    modules = set()
    for node in ast.walk(TypingRemover().visit(ast.parse(MODULES[module].read_text()))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names} & MODULES.keys()
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                modules |= {name if name in MODULES else node.module} & MODULES.keys()
    return modules


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def find_cycles(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that reach themselves."""

    def reachable(start: str) -> set[str]:
        seen, stack = set(), [start]
        while stack:
            for successor in graph.get(stack.pop(), set()) - seen:
                seen.add(successor)
                stack.append(successor)
        return seen

    return sorted(node for node in graph if node in reachable(node))


def test_the_package_root_holds_only_init_and_types():
    assert {path.stem for path in (ROOT / "emofuse_jax").glob("*.py")} == {"__init__", "types"}
    folders = {path.name for path in (ROOT / "emofuse_jax").iterdir() if (path / "__init__.py").is_file()}
    assert folders | {"types"} == {name for layer in LAYERS for name in layer}


def test_imports_go_one_way():
    for module in MODULES:
        check_imports(module)


def check_imports(module):
    layer_numbers = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    names = imported_names(MODULES[module])
    for name in imported_modules(module):
        if is_within(module, "data_prep"):
            is_allowed = is_within(name, "data_prep") or any(
                is_within(name, prefix) for prefix in ALLOWED_IN_DATA_PREP
            )
        elif is_within(name, "data_prep"):
            is_allowed = any(is_within(module, prefix) for prefix in DATA_PREP_IMPORTERS)
        elif module == "emofuse_jax" or name == "emofuse_jax":
            is_allowed = module in BENCHMARK_IMPORTERS  # it looks for the clone that the package lies in
        else:
            importer, imported = module.split(".")[1], name.split(".")[1]
            is_allowed = importer == imported or layer_numbers[imported] < layer_numbers[importer]
        assert is_allowed, f"{module} imports {name}"
    for library, importers in ALLOWED_IMPORTERS.items():
        if not any(is_within(module, prefix) for prefix in importers):
            assert not any(is_within(name, library) for name in names), f"{module} imports {library}"
    forbidden_packages = (
        "tests",
        "launch",
        "configs",
        *(() if module in BENCHMARK_IMPORTERS else ("benchmarks",)),
    )
    wrong_names = [name for name in names if name.split(".")[0] in forbidden_packages]
    assert not wrong_names, f"{module} imports {wrong_names}"


def test_no_file_is_part_of_an_import_cycle():
    assert not find_cycles({module: imported_modules(module) for module in MODULES})


def test_no_package_is_part_of_an_import_cycle():
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for name in imported_modules(module):
            package, imported_package = (str(p.parent.relative_to(ROOT)) for p in (path, MODULES[name]))
            if not (
                f"{package}/".startswith(f"{imported_package}/")
                or f"{imported_package}/".startswith(f"{package}/")
            ):
                graph.setdefault(package, set()).add(imported_package)
    assert not find_cycles(graph)


def test_verbs_are_started_and_not_imported():
    """Two verbs may have flags of one name: a process holds one of them."""
    verbs = {f"emofuse_jax.cli.{verb}" for verb in VERBS}
    for path in (*FILES, *sorted((ROOT / "tests").rglob("*.py"))):
        assert not imported_names(path) & verbs, path


def test_nothing_reads_pickles():
    """No pickle is read from anything a user or a download brings; joblib only behind its hash check."""
    for module, path in MODULES.items():
        names = {name.split(".")[0] for name in imported_names(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        assert "joblib" not in names or module == "data_prep.faces.weights", path
        text = path.read_text()
        assert "allow_pickle=True" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec"):
                raise AssertionError(f"{path}:{node.lineno} evaluates code")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("np.load"):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("allow_pickle") == "False", f"{path}:{node.lineno}"


def modules_loaded_by(imports: str, libraries: tuple[str, ...]) -> str:
    """Which of the libraries a fresh process has loaded after some imports."""
    code = f"import sys, {imports}\nprint([m for m in {libraries!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_package_is_light_to_import():
    libraries = ("tensorflow", "librosa", "av", "cv2", "matplotlib", "flax", "orbax", "grain")
    modules = "emofuse_jax.types, emofuse_jax.data.records, emofuse_jax.scoring.metrics, emofuse_jax.losses"
    assert modules_loaded_by(modules, libraries) == "[]"


def test_every_part_imports_without_media_and_plotting_libraries():
    libraries = ("tensorflow", "librosa", "av", "cv2", "matplotlib")
    modules = "emofuse_jax.api.evaluation, emofuse_jax.reporting.run_report, emofuse_jax.api.training"
    assert modules_loaded_by(f"{modules}, emofuse_jax.serving", libraries) == "[]"


def test_training_does_not_import_an_installed_pytorch(tmp_path):
    """tensorboardX would; what imports it afterwards still can."""
    (tmp_path / "torch.py").write_text("print('imported')")
    code = "import emofuse_jax.training.train; print('then'); import torch"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["then", "imported"]
