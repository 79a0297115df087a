"""Draws docstrings and messages for a reading check: `python -m tests.support.reading SEED > sample.json`.

A reader who sees only the sample writes down what each function returns and when it raises, and what each
error means and what to do. A second reader compares the answers with the code; results/reading.json keeps
them.
"""

import ast
import json
import random
import sys
from collections.abc import Iterator

from tests.support.paths import ROOT

FOLDERS = ("emofuse_jax", "data_prep")
NUM_DOCSTRINGS, NUM_MESSAGES = 60, 30


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yields the documented functions and methods of a module with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            yield prefix + node.name, node


def error_messages(tree: ast.AST) -> Iterator[str]:
    """Yields the source of the arguments of each `raise Error(message)` whose text is written there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [x for x in node.exc.args if isinstance(x, ast.JoinedStr | ast.Constant)]
            if any(isinstance(text, ast.JoinedStr) or isinstance(text.value, str) for text in texts):
                yield " | ".join(map(ast.unparse, node.exc.args))


def draw(seed: int) -> dict[str, list[dict[str, str]]]:
    """Returns a seeded sample of docstrings and of error messages."""
    docstrings, messages = [], []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        tree, file = ast.parse(path.read_text()), str(path.relative_to(ROOT))
        for name, node in functions(tree):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            signature = f"def {name}({ast.unparse(node.args)}){returns}"
            docstrings.append({"file": file, "signature": signature, "docstring": ast.get_docstring(node)})
        messages += [{"file": file, "message": message} for message in error_messages(tree)]
    rng = random.Random(seed)
    return {
        "docstrings": rng.sample(docstrings, NUM_DOCSTRINGS),
        "messages": rng.sample(messages, NUM_MESSAGES),
    }


if __name__ == "__main__":
    json.dump(draw(int(sys.argv[1])), sys.stdout, indent=1)
