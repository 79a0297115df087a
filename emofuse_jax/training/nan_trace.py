"""Which value of a computation was the first not to be finite: its program run operation by operation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core, source_info_util

FINITE, INFINITE, NAN = range(3)
WORDS = {INFINITE: "infinite", NAN: "NaN"}
LOOPS = ("scan", "while", "cond", "shard_map")
"""Primitives that are run whole."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a value that is not finite came from."""

    kind: int
    told: str = ""
    inputs: tuple["Origin", ...] = ()
    """Of the operation that made it, those that were not finite either."""


class Value(NamedTuple):
    """A result of an operation, or an input; its numbers live no longer than they are needed."""

    array: jax.Array
    origin: Origin


NOTHING = Origin(FINITE, "nothing")


def value_of(array, told: Callable[[], str], inputs: Sequence[Value] = ()) -> Value:
    """An array with where it came from, in the words of `told` if it is not finite."""
    found = kind(array)
    if found == FINITE:
        return Value(array, NOTHING)
    return Value(array, Origin(found, told(), tuple(v.origin for v in inputs if v.origin.kind)))


def kind(x) -> int:
    """Whether an array holds a NaN, an infinite number, or neither."""
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return FINITE
    if jnp.isnan(x).any():
        return NAN
    return INFINITE if jnp.isinf(x).any() else FINITE


def first_not_finite(function: Callable, *arguments) -> str:
    """Where a result of `function(*arguments)` that is not finite comes from, in words; empty if all are.

    Follows NaN back to the operation that made it of numbers, and infinite ones among these to theirs; what
    is masked before it reaches a result does not count.
    """
    program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    named = zip(*(jax.tree.leaves(tree) for tree in (_names(arguments, "argument "), arguments)), strict=True)
    inputs = [value_of(array, lambda name=name: name) for name, array in named]
    results = [value.origin for value in run(program.jaxpr, program.consts, inputs)]
    names = jax.tree.leaves(_names(shape, "result "))
    wrong = [(origin, name) for origin, name in zip(results, names, strict=True) if origin.kind]
    if not wrong:
        return ""
    origin, name = max(wrong, key=lambda pair: pair[0].kind)
    return f"{name} is {WORDS[origin.kind]}: {' of '.join(origins(origin))}"


def _names(tree, prefix: str):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (prefix + jax.tree_util.keystr(path)).strip(), tree
    )


def origins(origin: Origin) -> Iterator[str]:
    """The operation that made the NaN, then the one that made the infinite number it was made of."""
    while origin.kind:
        same = [one for one in origin.inputs if one.kind == origin.kind]
        if same:
            origin = same[0]
            continue
        yield f"{WORDS[origin.kind]} from {origin.told}"
        origin = next(iter(origin.inputs), NOTHING)


def run(jaxpr: core.Jaxpr, constants, arguments: list[Value]) -> list[Value]:
    """Runs a program; a value is forgotten after its last use."""
    known = dict(zip(jaxpr.constvars, (value_of(c, lambda: "a constant") for c in constants), strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))
    uses = [*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars]
    last = {v: i for i, used in enumerate(uses) for v in used if not isinstance(v, core.Literal)}

    def read(variable) -> Value:
        if isinstance(variable, core.Literal):
            return value_of(jnp.asarray(variable.val, variable.aval.dtype), lambda: "a constant")
        return known[variable]

    for i, equation in enumerate(jaxpr.eqns):
        results = apply(equation, [read(variable) for variable in equation.invars])
        known |= zip(equation.outvars, results, strict=True)
        for variable in (*equation.invars, *equation.outvars):
            if not isinstance(variable, core.Literal) and last.get(variable, 0) <= i:
                known.pop(variable, None)
    return [read(variable) for variable in jaxpr.outvars]


def apply(equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    """One operation; a call is entered."""
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if inner is not None and equation.primitive.name not in LOOPS:
        return run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
    pairs = zip(equation.invars, inputs, strict=True)
    given = {v: value.array for v, value in pairs if not isinstance(v, core.Literal)}
    alone = core.ClosedJaxpr(core.Jaxpr((), list(given), equation.outvars, [equation]), ())
    found = core.jaxpr_as_fun(alone)(*given.values())

    def told() -> str:
        shapes = ", ".join(str(jax.typeof(value.array)) for value in inputs)
        return f"{equation.primitive.name}({shapes}) at {source_info_util.summarize(equation.source_info)}"

    return [value_of(array, told, inputs) for array in found]
