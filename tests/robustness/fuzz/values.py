"""Seeded damage to values: types, sizes, names and depth of what JSON or a config holds."""

import copy
import json
import math

import numpy as np

DEEP_NESTING_MARK = "deep-nesting-goes-here"
HOSTILE_VALUES = (
    *(None, True, False, 0, 1, -1, 3, 10**6, 2**31, -(2**63), 2**64, 10**30),
    *(0.5, -1e-9, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "0", "é\u202e\U0001f600", "a\0b", "a\nb", "../../x", "/etc/passwd", "x" * 5000),
    *("__import__('os').system('true')", "{seed}", "%s%n", "nan", "1e999"),
    *([], {}, [[]], [None], [0] * 5000, {"a": 1}, {"": {}}, {"a\nb": [1]}, [1, "a", None]),
    DEEP_NESTING_MARK,
)
"""DEEP stands for a hundred thousand brackets in JSON text, and for a few hundred lists elsewhere."""


def mutate_tree(tree, rng: np.random.Generator):
    """A copy of nested dicts and lists with one to three changes."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.integers(1, 4)):
        holder, key = _draw_place(root, rng)
        _change_value(holder, key, root, rng)
    return root[0] if root else None


def json_bytes(tree, rng: np.random.Generator) -> bytes:
    """`mutate_tree` as JSON text, which may also be nested deeply or name a number of five thousand
    digits."""
    text = json.dumps(mutate_tree(tree, rng))
    text = text.replace(f'"{DEEP_NESTING_MARK}"', "[" * 100_000 + "]" * int(100_000 * rng.integers(2)))
    if rng.integers(30) == 0:
        text = text.replace("1", "1" * 5000, 1)
    return text.encode()


def draw_hostile(rng: np.random.Generator):
    """One of HOSTILE, of few hundred levels at most."""
    value = HOSTILE_VALUES[rng.integers(len(HOSTILE_VALUES))]
    return nest_lists(int(rng.integers(2, 300))) if value is DEEP_NESTING_MARK else copy.deepcopy(value)


def nest_lists(levels: int) -> list:
    """Lists in lists."""
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def _draw_place(root: list, rng) -> tuple[dict | list, str | int]:
    """A holder and a key in it: deep places as likely as shallow ones, long lists not likelier than short."""
    holder, key = root, 0
    while (
        isinstance(holder[key], dict | list)
        and holder[key]
        and rng.random() < (0.97 if holder is root else 0.85)
    ):
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(len(keys))]
    return holder, key


def _change_value(holder, key, root: list, rng) -> None:
    action = rng.random()
    value = holder[key]
    if action < 0.5 or holder is root:
        holder[key] = copy.deepcopy(HOSTILE_VALUES[rng.integers(len(HOSTILE_VALUES))])
    elif action < 0.65:
        del holder[key]
    elif action < 0.75 and isinstance(holder, dict):
        holder[f"{key}{'x' * int(rng.integers(0, 3))}\n"[: int(rng.integers(1, 40))]] = holder.pop(key)
    elif action < 0.85:
        other, other_key = _draw_place(root, rng)
        holder[key] = copy.deepcopy(other[other_key])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = _change_number(value, rng)
    elif isinstance(value, list):
        holder[key] = value * int(rng.integers(0, 4)) if len(value) < 10_000 else []
    else:
        holder[key] = {"value": value} if rng.integers(2) else [value]


def _change_number(value: float, rng) -> float:
    changes = (
        lambda v: -v,
        lambda v: v + 1,
        lambda v: v - 1,
        lambda v: v * 1000,
        lambda v: v / 3,
        lambda v: v * 10**9,
    )
    return changes[rng.integers(len(changes))](value)
