"""Docstrings begin as the writing style asks, and nothing refers to pages outside the repository."""

import ast
import pathlib
import re

import pytest

from tests.support.paths import ROOT

FOLDERS = ("emofuse_jax", "data_prep", "configs", "launch", "benchmarks")
CLAUSE = re.compile(r"(Of|That|Those|What|Whether|Where|Why|Which|How|Whose|Who|When|If)\b")
"""Beginnings of noun clauses and of sentences without a subject."""
NOUNS = {"Labels", "Features", "Classes", "Names", "Values", "Fields", "Files", "Frames", "Faces", "Clips"}
NOUNS |= {"Speakers", "Rows", "Columns", "Shapes", "Weights", "Logits", "Steps", "Batches", "Means", "Sums"}
NOUNS |= {"Indices", "Models", "Positions", "Modalities", "Probabilities", "Statistics", "Sizes", "Masks"}
NOUNS |= {"This", "Its", "Loss", "Axis", "Bias", "Always", "Results", "Series", "Less"}
"""Words in -s that are no verbs in the third person."""
PROPERTY_DECORATORS = ("property", "cached_property")
OUTSIDE = re.compile(r"design\.md|dependencies\.md|names\.md|\.\./shared/(?!data)|\bP[1-4]\b(?!\.)")
"""Pages that are not part of the repository, and the short names that only they define."""


def documented(path: pathlib.Path):
    """Yields each node with a docstring, its first line, and whether it is a function that is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", ())]
                is_called = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
                    decorator.split(".")[-1] in PROPERTY_DECORATORS for decorator in decorators
                )
                yield getattr(node, "lineno", 1), text.strip().split("\n")[0], is_called


def wrong_first_lines(path: pathlib.Path) -> list[str]:
    """Lists docstrings that begin with a noun clause, and those of functions without a verb first."""
    lines = []
    for line, text, is_called in documented(path):
        first_word = re.match(r"[\w-]*", text)[0]
        is_verb = re.fullmatch(r"[A-Z][a-z-]*s", first_word) and first_word not in NOUNS
        if CLAUSE.match(text) or (is_called and not is_verb):
            lines.append(f"{path.relative_to(ROOT)}:{line}: {text[:80]}")
    return lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_a_verb_and_not_with_a_clause(folder):
    wrong = [line for path in sorted((ROOT / folder).rglob("*.py")) for line in wrong_first_lines(path)]
    print(f"{folder}: {len(wrong)} docstrings")
    assert not wrong, "\n".join(wrong)


def test_nothing_refers_to_pages_outside_the_repository():
    paths = [path for folder in (*FOLDERS, "docs") for path in (ROOT / folder).rglob("*.*")]
    paths += [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    references = [
        f"{path.relative_to(ROOT)}:{i}: {line.strip()[:80]}"
        for path in paths
        if path.suffix in (".py", ".md", ".html", ".js", ".css", ".sh", ".yaml", ".json")
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if OUTSIDE.search(line)
    ]
    assert not references, "\n".join(references)


def test_the_check_sees_what_it_should(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.contract.test_prose.ROOT", tmp_path)
    code = '"""Of it."""\ndef f():\n    """The labels."""\ndef g():\n    """Labels of clips."""\n'
    path = tmp_path / "module.py"
    path.write_text(code + 'def h():\n    """Returns the labels."""\n')
    assert len(wrong_first_lines(path)) == 3
