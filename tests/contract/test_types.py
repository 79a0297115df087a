"""The public API for type checkers: documented examples pass, and wrong calls are errors."""

import doctest
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable

import pytest

import emofuse_jax as ef
from emofuse_jax.types import Params
from tests.contract.test_public_api import EXAMPLES
from tests.support.paths import ROOT

MISUSES = (
    'ef.train("am_fbp", "records", "run")',
    "ef.config(3)",
    'ef.config("am_fbp", form="tiny")',
    "run.scores(2)",
    'run.scores(splits="test")',
    'ef.write_records("records", clips)',
    'ef.write_records("records", clips, classes=("sad", "happy"), hop_ms="10")',
    'ef.write_records("records", clips, classes=("sad", "happy"), folds=[1])',
    'ef.register_encoder("wide", MelCNN)',
    'ef.register_encoder("wide", MelCNN, modality="text")',
    'ef.register_fusion("concat", "Concat")',
    'ef.register_corpus("mine", {"a": 1})',
    'ef.register_objective("mine", lambda outputs: outputs)',
    'ef.compare(run, run, measure="uar")',
    'ef.prepare("clips.csv")',
    "ef.evaluate(run.scores())",
    'ef.Clip("a", "anna", 3)',
    'ef.load("bundle").predict(clips=["clip.mp4"])',
    "ef.trian",
)
"""Calls that are wrong in their types, names or number of arguments, one per line."""
MISUSE_HEADER = """\
import emofuse_jax as ef
from emofuse_jax.models.encoders.audio_mel_cnn import MelCNN

run = ef.Run("run")
clips = [ef.Clip("a", "anna")]
"""
ERROR = re.compile(r"^(?P<file>\w+)\.py:(?P<line>\d+): error: (?P<message>.*)$", re.MULTILINE)


def example_source(name: str) -> str:
    """Returns the statements of a function's examples as one function, so that their names stay apart."""
    docstring = inspect.getdoc(getattr(ef, name)) or ""
    source = "".join(example.source for example in doctest.DocTestParser().get_examples(docstring))
    body = "".join(f"    {line}" for line in source.splitlines(keepends=True))
    return f"def example_{name}() -> None:\n{body}\n\n"


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Errors of `mypy --strict` in a file of examples and in one of misuses: (file, line, message)."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (extra `dev`)")
    directory = tmp_path_factory.mktemp("types")
    examples = "import emofuse_jax as ef\n\n\n" + "".join(map(example_source, EXAMPLES))
    (directory / "examples.py").write_text(examples, encoding="utf-8")
    (directory / "misuses.py").write_text(MISUSE_HEADER + "\n".join(MISUSES) + "\n", encoding="utf-8")
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={directory / 'cache'}"]
    files = ["examples.py", "misuses.py"]
    command_line = [sys.executable, "-m", "mypy", *options, "--no-error-summary", *files]
    completed = subprocess.run(
        command_line,
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert completed.returncode == 1, completed.stdout + completed.stderr  # 2: mypy itself failed
    matches = ERROR.finditer(completed.stdout)
    return [(match["file"], int(match["line"]), match["message"]) for match in matches]


def test_examples_have_no_type_errors(errors):
    assert [error for error in errors if error[0] == "examples"] == []


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_an_error(errors, misuse):
    line = MISUSE_HEADER.count("\n") + MISUSES.index(misuse) + 1
    assert [message for file, number, message in errors if (file, number) == ("misuses", line)]


def public_signatures() -> list[tuple[str, inspect.Signature]]:
    """Returns the signatures of public functions, and of methods of classes of `emofuse_jax.api`."""
    signatures = []
    for name in ef.__all__:
        value = getattr(ef, name)
        if inspect.isfunction(value):
            signatures.append((name, inspect.signature(value)))
        elif inspect.isclass(value) and value.__module__.startswith("emofuse_jax.api."):
            for attribute, member in vars(value).items():
                function = member.fget if isinstance(member, property) else member
                if inspect.isfunction(function) and not attribute.startswith("_"):
                    signatures.append((f"{name}.{attribute}", inspect.signature(function)))
    return signatures


def open_types(annotation: object) -> list[object]:
    """Returns the parts of an annotation that say nothing: Any, and containers of nothing in particular."""
    if annotation == Params:  # the one alias for nested dicts of arrays
        return []
    if annotation in (inspect.Signature.empty, typing.Any, dict, list, tuple, Callable):
        return [annotation]
    arguments = annotation if isinstance(annotation, list) else typing.get_args(annotation)  # of a Callable
    return [part for argument in arguments for part in open_types(argument)]


@pytest.mark.parametrize(("name", "signature"), public_signatures(), ids=lambda value: str(value)[:30])
def test_no_signature_leaves_a_type_open(name, signature):
    types = {argument.name: argument.annotation for argument in signature.parameters.values()}
    types.pop("self", None)
    for argument, annotation in {**types, "return": signature.return_annotation}.items():
        assert open_types(annotation) == [], f"{name}: {argument}"


def test_open_types_are_seen():
    assert open_types(dict[str, typing.Any] | None) == []  # Params
    assert open_types(dict[int, list] | None) == [list]
    assert open_types(Callable[[typing.Any], int]) == [typing.Any]
