"""Which value of a computation was the first not to be finite: its program run operation by operation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core, source_info_util

FINITE, INFINITE, NAN = range(3)
KIND_NAMES = {INFINITE: "infinite", NAN: "NaN"}
OPAQUE_PRIMITIVES = ("scan", "while", "cond", "shard_map")
"""Primitives that are run whole."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a value that is not finite came from."""

    kind: int
    description: str = ""
    inputs: tuple["Origin", ...] = ()
    """Of the operation that made it, those that were not finite either."""


class TracedValue(NamedTuple):
    """A result of an operation, or an input; its numbers live no longer than they are needed."""

    array: jax.Array
    origin: Origin


NO_ORIGIN = Origin(FINITE, "nothing")


def trace_value(array, describe: Callable[[], str], inputs: Sequence[TracedValue] = ()) -> TracedValue:
    """An array with where it came from, in the words of `describe` if it is not finite."""
    value_kind = classify_values(array)
    if value_kind == FINITE:
        return TracedValue(array, NO_ORIGIN)
    return TracedValue(
        array, Origin(value_kind, describe(), tuple(value.origin for value in inputs if value.origin.kind))
    )


def classify_values(x) -> int:
    """Whether an array holds a NaN, an infinite number, or neither."""
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return FINITE
    if jnp.isnan(x).any():
        return NAN
    return INFINITE if jnp.isinf(x).any() else FINITE


def find_first_nonfinite(function: Callable, *arguments) -> str:
    """Where a result of `function(*arguments)` that is not finite comes from, in words; empty if all are.

    Follows NaN back to the operation that made it of numbers, and infinite ones among these to theirs; what
    is masked before it reaches a result does not count.
    """
    jaxpr, result_shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    named_arrays = zip(
        *(jax.tree.leaves(tree) for tree in (_leaf_names(arguments, "argument "), arguments)), strict=True
    )
    inputs = [trace_value(array, lambda name=name: name) for name, array in named_arrays]
    results = [value.origin for value in run_jaxpr(jaxpr.jaxpr, jaxpr.consts, inputs)]
    names = jax.tree.leaves(_leaf_names(result_shapes, "result "))
    nonfinite_results = [(origin, name) for origin, name in zip(results, names, strict=True) if origin.kind]
    if not nonfinite_results:
        return ""
    origin, name = max(nonfinite_results, key=lambda result: result[0].kind)
    return f"{name} is {KIND_NAMES[origin.kind]}: {' of '.join(describe_origins(origin))}"


def _leaf_names(tree, prefix: str):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (prefix + jax.tree_util.keystr(path)).strip(), tree
    )


def describe_origins(origin: Origin) -> Iterator[str]:
    """The operation that made the NaN, then the one that made the infinite number it was made of."""
    while origin.kind:
        same_kind = [parent for parent in origin.inputs if parent.kind == origin.kind]
        if same_kind:
            origin = same_kind[0]
            continue
        yield f"{KIND_NAMES[origin.kind]} from {origin.description}"
        origin = next(iter(origin.inputs), NO_ORIGIN)


def run_jaxpr(jaxpr: core.Jaxpr, constants, arguments: list[TracedValue]) -> list[TracedValue]:
    """Runs a program; a value is forgotten after its last use."""
    values = dict(
        zip(
            jaxpr.constvars,
            (trace_value(constant, lambda: "a constant") for constant in constants),
            strict=True,
        )
    )
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    variables_read = [*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars]
    last_use = {
        v: i
        for i, variables in enumerate(variables_read)
        for v in variables
        if not isinstance(v, core.Literal)
    }

    def read(variable) -> TracedValue:
        if isinstance(variable, core.Literal):
            return trace_value(jnp.asarray(variable.val, variable.aval.dtype), lambda: "a constant")
        return values[variable]

    for i, equation in enumerate(jaxpr.eqns):
        results = run_equation(equation, [read(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
        for variable in (*equation.invars, *equation.outvars):
            if not isinstance(variable, core.Literal) and last_use.get(variable, 0) <= i:
                values.pop(variable, None)
    return [read(variable) for variable in jaxpr.outvars]


def run_equation(equation: core.JaxprEqn, inputs: list[TracedValue]) -> list[TracedValue]:
    """One operation; a call is entered."""
    inner_jaxpr = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if inner_jaxpr is not None and equation.primitive.name not in OPAQUE_PRIMITIVES:
        return run_jaxpr(
            getattr(inner_jaxpr, "jaxpr", inner_jaxpr), getattr(inner_jaxpr, "consts", ()), inputs
        )
    pairs = zip(equation.invars, inputs, strict=True)
    input_arrays = {
        variable: value.array for variable, value in pairs if not isinstance(variable, core.Literal)
    }
    single_equation = core.ClosedJaxpr(core.Jaxpr((), list(input_arrays), equation.outvars, [equation]), ())
    outputs = core.jaxpr_as_fun(single_equation)(*input_arrays.values())

    def describe() -> str:
        shapes = ", ".join(str(jax.typeof(value.array)) for value in inputs)
        return f"{equation.primitive.name}({shapes}) at {source_info_util.summarize(equation.source_info)}"

    return [trace_value(array, describe, inputs) for array in outputs]
