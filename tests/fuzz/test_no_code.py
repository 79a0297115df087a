"""Nothing that comes from outside is run, and no name in it leads outside (see also test_imports.py)."""

import ast
import json
import os
import pathlib
import shutil

import pytest

from emofuse_jax.serving import load, manifest
from tests.test_imports import FILES, ROOT, imports, module_name

ALLOWED = {
    ("data_prep.faces.weights", "joblib.load"): "the pinned detector's weights, after their SHA-256",
    ("data_prep.onnx_layouts", "yaml.safe_load"): "plain values alone",
}
"""Module and call, and why it may."""
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("pickle.load", "pickle.loads", "joblib.load", "marshal.loads", "shelve.open", "torch.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.safe_load", "pandas.read_pickle"),
    *("zipfile.ZipFile.extractall", "tarfile.open", "shutil.unpack_archive"),
}
ARCHIVES = {"tarfile", "zipimport", "pty", "code", "codeop", "runpy", "jsonpickle"}


def calls(path: pathlib.Path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_module_runs_what_it_reads(path):
    module = module_name(path)
    assert not {name.split(".")[0] for name in imports(path)} & ARCHIVES
    for call in calls(path):
        name, where = ast.unparse(call.func), f"{path.relative_to(ROOT)}:{call.lineno}"
        if name in FORBIDDEN_CALLS:
            assert (module, name) in ALLOWED, f"{where}: {name}"
        assert not name.endswith(("extractall", "read_pickle")), where
        for keyword in call.keywords:
            said = keyword.arg, ast.unparse(keyword.value)
            assert said not in (("shell", "True"), ("allow_pickle", "True")), where


def test_what_is_allowed_is_there():
    """A list that names what is gone would let it come back unseen."""
    found = {(module_name(path), ast.unparse(call.func)) for path in FILES for call in calls(path)}
    assert ALLOWED.keys() <= found
    text = (ROOT / "data_prep" / "faces" / "weights.py").read_text()
    assert text.index("HASHES[name]") < text.index("joblib.load(")


def renamed(copy: pathlib.Path, old: str, new: str) -> None:
    """bundle.json says `new` where it said `old`, of the same hash."""
    about = json.loads((copy / manifest.MANIFEST).read_text())
    about["files"][new] = about["files"].pop(old)
    (copy / manifest.MANIFEST).write_text(json.dumps(about))


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
        whole = (copy / manifest.MANIFEST).read_text()
        (copy / manifest.MANIFEST).write_text(whole.replace('"temperature": 1.7', f'"temperature": {text}'))
        with pytest.raises(ValueError, match="not JSON: the number"):
            load(str(copy))
        (copy / manifest.MANIFEST).write_text(whole)
