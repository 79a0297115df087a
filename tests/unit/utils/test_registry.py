"""Registries: built-in, registered and installed implementations, each under one name."""

import importlib.metadata

import pytest

from emofuse_jax.utils.registry import Registry


def check(value):
    if not isinstance(value, int):
        raise ValueError(f"{value!r}: expected a number")


@pytest.fixture
def registry(monkeypatch):
    points = [
        importlib.metadata.EntryPoint("four", "tests.unit.utils.test_registry:FOUR", "emofuse.test"),
        importlib.metadata.EntryPoint("text", "tests.unit.utils.test_registry:__name__", "emofuse.test"),
        importlib.metadata.EntryPoint("gone", "tests.unit.utils.no_such_module:X", "emofuse.test"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    return Registry("number", "emofuse.test", {"one": 1}, check)


FOUR = 4


def test_names_come_from_three_places(registry):
    registry.register("two", 2)
    assert list(registry) == ["one", "two", "four", "text", "gone"]
    assert len(registry) == 5
    assert (registry["one"], registry["two"], registry["four"]) == (1, 2, 4)
    assert "five" not in registry


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.register("one", 3), "name='one': this number exists already; pass replace=True"),
        (lambda r: r.register("four", 3), "name='four': this number exists already"),
        (lambda r: r.register("a b", 3), "name='a b': expected the name of a number"),
        (lambda r: r.register("five", "5"), "'five' is not a valid number: '5': expected a number"),
        (
            lambda r: r["text"],
            "'text' is not a valid number: 'tests.unit.utils.test_registry': expected a number",
        ),
        (
            lambda r: r["gone"],
            "entry point emofuse.test: gone = tests.unit.utils.no_such_module:X: can't be imported",
        ),
        (
            lambda r: r.require("six", "config.six"),
            "config.six: 'six', expected one of one, four, text, gone",
        ),
        (lambda r: r.require(None, "config.six"), "config.six: None, expected one of"),
    ],
)
def test_errors_are_one_line(registry, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(registry)
    assert "\n" not in str(caught.value)


def test_replace_and_unregister(registry):
    registry.register("two", 2)
    registry.register("two", 22, replace=True)
    assert registry["two"] == 22
    registry.unregister("two")
    assert "two" not in registry
    with pytest.raises(KeyError):
        registry["two"]
