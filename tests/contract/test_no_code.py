"""Nothing that comes from outside is run, and no name in it leads outside (see also test_imports.py)."""

import ast
import json
import os
import pathlib
import shutil

import pytest

from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from tests.contract.test_imports import FILES, module_name
from tests.support.paths import ROOT

ALLOWED = {
    ("data_prep.faces.weights", "joblib.load"): "the pinned detector's weights, after their SHA-256",
    ("data_prep.onnx_models.layouts", "yaml.safe_load"): "plain values alone",
}
"""Module and call, and why it may."""
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile"),
    *("builtins.__import__", "os.system", "os.popen", "os.startfile", "posix.system"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("joblib.load", "torch.load", "numpy.core.multiarray.scalar", "pandas.read_pickle", "pandas.eval"),
    *("yaml.load", "yaml.load_all", "yaml.safe_load", "yaml.unsafe_load", "yaml.full_load"),
    *("tarfile.open", "shutil.unpack_archive", "logging.config.fileConfig"),
}
"""Functions, by the names that they have in their modules."""
FORBIDDEN_SUFFIXES = ("extractall", "read_pickle", "unpack_archive")
"""Of names that are called, whatever they are called on."""
FORBIDDEN_PREFIXES = (
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "pickle.",
    "marshal.",
    "shelve.",
    "dill.",
    "cloudpickle.",
)
"""Beginnings of more such names."""
FORBIDDEN_MODULES = {
    "tarfile",
    "zipimport",
    "pty",
    "code",
    "codeop",
    "runpy",
    "jsonpickle",
    "commands",
    "ctypes",
}
"""Not even imported."""
RESTRICTED_KEYWORDS = ("shell", "allow_pickle")
"""Of calls: nothing but False may be said."""


def resolve_names(tree: ast.AST) -> dict[str, str]:
    """What each name of a module stands for, by `import a as b`, `from a import b as c`, and `c = a.b`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                qualified_name = resolve_expression(node.value, names)
                if isinstance(target, ast.Name) and is_forbidden(qualified_name):
                    names[target.id] = qualified_name
    return names


def resolve_expression(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted name of an expression, of the module that it comes from; getattr(a, "b") is a.b."""
    if isinstance(node, ast.Attribute):
        return f"{resolve_expression(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Call) and resolve_expression(node.func, names) in (
        "getattr",
        "importlib.import_module",
    ):
        return ".".join(
            a.value if isinstance(a, ast.Constant) else resolve_expression(a, names) for a in node.args[:2]
        )
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ast.unparse(node)


def is_forbidden(name: str) -> bool:
    return name in FORBIDDEN or name.startswith(FORBIDDEN_PREFIXES) or name.endswith(FORBIDDEN_SUFFIXES)


def find_forbidden_uses(text: str) -> list[tuple[int, str]]:
    """Line and name of everything in a module that may not be there, whatever it is called there."""
    tree = ast.parse(text)
    names = resolve_names(tree)
    forbidden_uses = [(0, name) for name in names.values() if name.split(".")[0] in FORBIDDEN_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Call) and is_forbidden(
            qualified_name := resolve_expression(node, names)
        ):
            forbidden_uses.append((node.lineno, qualified_name))
        if (
            isinstance(node, ast.keyword)
            and node.arg in RESTRICTED_KEYWORDS
            and ast.unparse(node.value) != "False"
        ):
            forbidden_uses.append((node.lineno, f"{node.arg}={ast.unparse(node.value)}"))
    return forbidden_uses


def test_no_module_runs_what_it_reads():
    """Only what is allowed, and all of that: a list that names what is gone would let it come back."""
    used_names = set()
    for path in FILES:
        for line, name in find_forbidden_uses(path.read_text()):
            assert (module_name(path), name) in ALLOWED, f"{path.relative_to(ROOT)}:{line}: {name}"
            used_names.add((module_name(path), name))
    assert used_names == ALLOWED.keys()
    text = (ROOT / "data_prep" / "faces" / "weights.py").read_text()
    assert text.index("WEIGHTS_SHA256[name]") < text.index("joblib.load(")


ALIASES = {
    "import os\nos.system('x')": "os.system",
    "from os import system\nsystem('x')": "os.system",
    "from os import system as run\nmap(run, ['x'])": "os.system",
    "import os as o\no.popen('x')": "os.popen",
    "import os\nrun = os.system\nrun('x')": "os.system",
    "import os\ngetattr(os, 'system')('x')": "os.system",
    "import importlib\nimportlib.import_module('os').system('x')": "os.system",
    "import os\nos.execvp('x', [])": "os.execvp",
    "import subprocess as s\ns.run('x', shell=True)": "shell=True",
    "from subprocess import Popen\nPopen('x', shell=True)": "shell=True",
    "import subprocess\nsubprocess.call('x', shell=not False)": "shell=not False",
    "from subprocess import getoutput\ngetoutput('x')": "subprocess.getoutput",
    "run = eval\nrun('x')": "eval",
    "import builtins\nbuiltins.exec('x')": "builtins.exec",
    "from pickle import loads as read\nread(b'')": "pickle.loads",
    "import pickle\npickle.Unpickler(f).load()": "pickle.Unpickler",
    "import numpy as np\nnp.load(f, allow_pickle=True)": "allow_pickle=True",
    "import yaml\nyaml.load(f, yaml.Loader)": "yaml.load",
    "import zipfile\nzipfile.ZipFile(f).extractall()": "zipfile.ZipFile(f).extractall",
    "import tarfile": "tarfile",
    "def f():\n    from ctypes import CDLL": "ctypes.CDLL",
}


@pytest.mark.parametrize("text", ALIASES)
def test_what_is_forbidden_is_seen_under_any_name(text):
    assert ALIASES[text] in {name for _, name in find_forbidden_uses(text)}


def test_what_only_sounds_like_it_may_stay():
    text = "import re\npattern = re.compile('x')\nmodel.eval()\nimport subprocess\nsubprocess.run(['x'])"
    assert find_forbidden_uses(text) == []


def rename_bundle_file(bundle_copy: pathlib.Path, old: str, new: str) -> None:
    """bundle.json says `new` where it said `old`, of the same hash."""
    manifest = json.loads((bundle_copy / format.MANIFEST_FILE).read_text())
    manifest["files"][new] = manifest["files"].pop(old)
    (bundle_copy / format.MANIFEST_FILE).write_text(json.dumps(manifest))


UNSAFE_NAMES = (
    "../outside",
    "/etc/hostname",
    "sub/card.md",
    "..",
    ".",
    "",
    "a\0b",
    "a\nb",
    "\u202ecard.md",
    "bundle.json",
)


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_a_bundle_names_no_file_outside_of_it(bundle_copy, name):
    """Refused by its name, though a file with the right hash lies there."""
    shutil.copy(bundle_copy / "MODEL_CARD.md", bundle_copy.parent / "outside")
    (bundle_copy / "sub").mkdir()
    shutil.copy(bundle_copy / "MODEL_CARD.md", bundle_copy / "sub" / "card.md")
    rename_bundle_file(bundle_copy, "MODEL_CARD.md", name)
    with pytest.raises(
        ValueError, match=r"\A[^\n]*bundle\.json: field files: [^\n]*plain file name;[^\n]*\Z"
    ):
        load(str(bundle_copy))


def test_a_bundle_of_links_pipes_and_devices(bundle_copy):
    """A link to a whole file of the right hash is that file, as in a download cache; a pipe is refused."""
    card, outside = bundle_copy / "MODEL_CARD.md", bundle_copy.parent / "outside"
    os.replace(card, outside)
    card.symlink_to(outside)
    load(str(bundle_copy))
    for target in ("/dev/zero", "/proc/self/mem", str(bundle_copy), "nowhere"):
        card.unlink()
        card.symlink_to(target)
        with pytest.raises(ValueError, match=r"MODEL_CARD\.md: (not a regular file|cannot be read|modified)"):
            load(str(bundle_copy))
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(ValueError, match=r"MODEL_CARD\.md: not a regular file"):
        load(str(bundle_copy))


def test_numbers_that_no_browser_reads(bundle_copy):
    for text in ("NaN", "-Infinity", "1e999"):
        manifest_text = (bundle_copy / format.MANIFEST_FILE).read_text()
        (bundle_copy / format.MANIFEST_FILE).write_text(
            manifest_text.replace('"temperature": 1.7', f'"temperature": {text}')
        )
        with pytest.raises(ValueError, match=r"not JSON: number .* is not finite"):
            load(str(bundle_copy))
        (bundle_copy / format.MANIFEST_FILE).write_text(manifest_text)
