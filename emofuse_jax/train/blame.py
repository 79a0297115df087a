"""Which value of a computation was the first not to be finite: its program run operation by operation."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.extend import core, source_info_util

FINITE, INFINITE, NAN = range(3)
WORDS = {INFINITE: "infinite", NAN: "NaN"}
LOOPS = ("scan", "while", "cond", "shard_map")
"""Primitives that are run whole."""


@dataclasses.dataclass
class Value:
    """A result of an operation, or an input."""

    array: jax.Array
    told: str
    """Where it came from."""
    inputs: tuple["Value", ...] = ()

    def __post_init__(self):
        self.kind = kind(self.array)


def kind(x) -> int:
    """Whether an array holds a NaN, an infinite number, or neither."""
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return FINITE
    if jnp.isnan(x).any():
        return NAN
    return INFINITE if jnp.isinf(x).any() else FINITE


NOTHING = Value(None, "nothing")


def first_not_finite(function: Callable, *arguments) -> str:
    """Where a result of `function(*arguments)` that is not finite comes from, in words; empty if all are.

    Follows NaN back to the operation that made it of numbers, and infinite ones among these to theirs; what
    is masked before it reaches a result does not count.
    """
    program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    named = zip(*(jax.tree.leaves(tree) for tree in (_names(arguments, "argument "), arguments)), strict=True)
    results = run(program.jaxpr, program.consts, [Value(array, name) for name, array in named])
    names = jax.tree.leaves(_names(shape, "result "))
    wrong = [(value, name) for value, name in zip(results, names, strict=True) if value.kind]
    if not wrong:
        return ""
    value, name = max(wrong, key=lambda pair: pair[0].kind)
    return f"{name} is {WORDS[value.kind]}: {' of '.join(origins(value))}"


def _names(tree, prefix: str):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (prefix + jax.tree_util.keystr(path)).strip(), tree
    )


def origins(value: Value) -> Iterator[str]:
    """The operation that made the NaN, then the one that made the infinite number it was made of."""
    while value.kind:
        same = [one for one in value.inputs if one.kind == value.kind]
        if same:
            value = same[0]
            continue
        yield f"{WORDS[value.kind]} from {value.told}"
        value = next((one for one in value.inputs if one.kind), NOTHING)


def run(jaxpr: core.Jaxpr, constants, arguments: list[Value]) -> list[Value]:
    """Runs a program; each value remembers what it was made of."""
    known = dict(zip(jaxpr.constvars, (Value(c, "a constant") for c in constants), strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable) -> Value:
        if isinstance(variable, core.Literal):
            return Value(jnp.asarray(variable.val, variable.aval.dtype), "a constant")
        return known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        known |= zip(equation.outvars, apply(equation, inputs), strict=True)
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
    shapes = ", ".join(str(jax.typeof(value.array)) for value in inputs)
    told = f"{equation.primitive.name}({shapes}) at {source_info_util.summarize(equation.source_info)}"
    return [Value(array, told, tuple(inputs)) for array in found]
