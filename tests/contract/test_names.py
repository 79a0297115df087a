"""Names say what a thing is: no variable, argument, function or class has a name that says nothing."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

FOLDERS = ("emofuse_jax", "data_prep", "configs", "launch", "benchmarks", "tests")
VAGUE = {"found", "about", "told", "whole", "held", "given", "own", "kept", "said", "asked"}


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file binds, with its line: variables, arguments, functions, classes, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            yield node.name or "", node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or "", node.lineno) for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_is_vague(folder):
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in bound_names(ast.parse(path.read_text()))
        if name.strip("_").lower() in VAGUE
    ]
    print(f"{folder}: {len(vague)} vague names")
    assert not vague, "\n".join(vague)


def test_the_check_sees_every_kind_of_name():
    code = "import a as told\ndef found(own): kept = 1\n"
    code += "class Held:\n  def f(self): self._given = [x for about in y]"
    names = [name for name, _ in bound_names(ast.parse(code)) if name.strip("_").lower() in VAGUE]
    assert sorted(names) == ["Held", "_given", "about", "found", "kept", "own", "told"]
