"""Nothing that comes from outside is run, and no name in it leads outside (see also test_imports.py)."""

import ast
import json
import os
import pathlib
import shutil

import pytest

from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from tests.test_imports import FILES, ROOT, module_name

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
FORBIDDEN_ENDS = ("extractall", "read_pickle", "unpack_archive")
"""Of names that are called, whatever they are called on."""
FAMILIES = (
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
MODULES = {"tarfile", "zipimport", "pty", "code", "codeop", "runpy", "jsonpickle", "commands", "ctypes"}
"""Not even imported."""
KEYWORDS = ("shell", "allow_pickle")
"""Of calls: nothing but False may be said."""


def names_of(tree: ast.AST) -> dict[str, str]:
    """What each name of a module stands for, by `import a as b`, `from a import b as c`, and `c = a.b`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                said = meant(node.value, found)
                if isinstance(target, ast.Name) and forbidden(said):
                    found[target.id] = said
    return found


def meant(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted name of an expression, of the module that it comes from; getattr(a, "b") is a.b."""
    if isinstance(node, ast.Attribute):
        return f"{meant(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Call) and meant(node.func, names) in ("getattr", "importlib.import_module"):
        return ".".join(a.value if isinstance(a, ast.Constant) else meant(a, names) for a in node.args[:2])
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ast.unparse(node)


def forbidden(name: str) -> bool:
    return name in FORBIDDEN or name.startswith(FAMILIES) or name.endswith(FORBIDDEN_ENDS)


def uses(text: str) -> list[tuple[int, str]]:
    """Line and name of everything in a module that may not be there, whatever it is called there."""
    tree = ast.parse(text)
    names = names_of(tree)
    found = [(0, name) for name in names.values() if name.split(".")[0] in MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Call) and forbidden(said := meant(node, names)):
            found.append((node.lineno, said))
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS and ast.unparse(node.value) != "False":
            found.append((node.lineno, f"{node.arg}={ast.unparse(node.value)}"))
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_module_runs_what_it_reads(path):
    for line, name in uses(path.read_text()):
        assert (module_name(path), name) in ALLOWED, f"{path.relative_to(ROOT)}:{line}: {name}"


def test_what_is_allowed_is_there():
    """A list that names what is gone would let it come back unseen."""
    found = {(module_name(path), name) for path in FILES for _, name in uses(path.read_text())}
    assert found == ALLOWED.keys()
    text = (ROOT / "data_prep" / "faces" / "weights.py").read_text()
    assert text.index("HASHES[name]") < text.index("joblib.load(")


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
    assert ALIASES[text] in {name for _, name in uses(text)}


def test_what_only_sounds_like_it_may_stay():
    text = "import re\npattern = re.compile('x')\nmodel.eval()\nimport subprocess\nsubprocess.run(['x'])"
    assert uses(text) == []


def renamed(copy: pathlib.Path, old: str, new: str) -> None:
    """bundle.json says `new` where it said `old`, of the same hash."""
    about = json.loads((copy / format.MANIFEST_FILE).read_text())
    about["files"][new] = about["files"].pop(old)
    (copy / format.MANIFEST_FILE).write_text(json.dumps(about))


TRICKS = (
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


@pytest.mark.parametrize("name", TRICKS)
def test_a_bundle_names_no_file_outside_of_it(copy, name):
    """Refused by its name, though a file with the right hash lies there."""
    shutil.copy(copy / "MODEL_CARD.md", copy.parent / "outside")
    (copy / "sub").mkdir()
    shutil.copy(copy / "MODEL_CARD.md", copy / "sub" / "card.md")
    renamed(copy, "MODEL_CARD.md", name)
    with pytest.raises(ValueError, match=r"\A[^\n]*bundle\.json: field files names [^\n]*plain file name\Z"):
        load(str(copy))


def test_a_bundle_of_links_pipes_and_devices(copy):
    """A link to a whole file of the right hash is that file, as in a download cache; a pipe is refused."""
    card, outside = copy / "MODEL_CARD.md", copy.parent / "outside"
    os.replace(card, outside)
    card.symlink_to(outside)
    load(str(copy))
    for target in ("/dev/zero", "/proc/self/mem", str(copy), "nowhere"):
        card.unlink()
        card.symlink_to(target)
        with pytest.raises(ValueError, match=r"MODEL_CARD\.md: (not a file|cannot be read|altered)"):
            load(str(copy))
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(ValueError, match=r"MODEL_CARD\.md: not a file"):
        load(str(copy))


def test_numbers_that_no_browser_reads(copy):
    for text in ("NaN", "-Infinity", "1e999"):
        whole = (copy / format.MANIFEST_FILE).read_text()
        (copy / format.MANIFEST_FILE).write_text(
            whole.replace('"temperature": 1.7', f'"temperature": {text}')
        )
        with pytest.raises(ValueError, match="not JSON: the number"):
            load(str(copy))
        (copy / format.MANIFEST_FILE).write_text(whole)
