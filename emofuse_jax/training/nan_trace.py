"""Finds the first NaN or infinite value of a computation, by running it operation by operation."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core, source_info_util
from jax.typing import ArrayLike
from jaxtyping import PyTree

FINITE, INFINITE, NAN = range(3)
KIND_NAMES = {INFINITE: "infinite", NAN: "NaN"}
OPAQUE_PRIMITIVES = ("scan", "while", "cond", "shard_map")
"""Primitives that are run as one operation, without looking inside."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of a value that is not finite."""

    kind: int
    """FINITE, INFINITE or NAN."""
    description: str = ""
    """Operation or input that produced the value, as text."""
    inputs: tuple["Origin", ...] = ()
    """Origins of the inputs of this operation that were not finite either."""


class TracedValue(NamedTuple):
    """An input, or a result of an operation, with its origin; its array is freed after its last use."""

    array: ArrayLike
    origin: Origin


NO_ORIGIN = Origin(FINITE, "nothing")


def trace_value(
    array: ArrayLike, describe: Callable[[], str], inputs: Sequence[TracedValue] = ()
) -> TracedValue:
    """Returns a TracedValue: the array and its origin.

    The origin of an array that is finite is NO_ORIGIN, whose `kind` is FINITE. Otherwise its `kind` is NAN or
    INFINITE, its `description` the text of `describe()`, and its `inputs` the origins of those `inputs` that
    are not finite either.
    """
    value_kind = classify_values(array)
    if value_kind == FINITE:
        return TracedValue(array, NO_ORIGIN)
    return TracedValue(
        array, Origin(value_kind, describe(), tuple(value.origin for value in inputs if value.origin.kind))
    )


def classify_values(x: ArrayLike) -> int:
    """Returns NAN (2) if an array contains a NaN, else INFINITE (1) if it contains an infinite number.

    Returns FINITE (0) for all other arrays, for arrays of integers or bools, and for values without a dtype.
    """
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return FINITE
    if jnp.isnan(x).any():
        return NAN
    return INFINITE if jnp.isinf(x).any() else FINITE


def find_first_nonfinite(function: Callable[..., PyTree], *arguments: PyTree) -> str:
    """Finds the operation that caused a result of `function(*arguments)` not to be finite.

    Of several such results, the first one with a NaN is reported, or else the first infinite one. A NaN is
    followed back to the operation that first produced it; if an input of this operation was infinite, that is
    followed back too. Values that are masked before they reach a result are ignored. Errors that `function`
    raises are passed through.

    Returns:
      A text such as `result ['loss'] is NaN: NaN from log(float32[]) at file.py:3`, with the name of the
      result, the operation, the shapes of its inputs and its line of code; for an infinite input, such as
      `, with input infinite from exp(float32[]) at file.py:2`, follows. The text is empty if all results are
      finite.
    """
    jaxpr, result_shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    named_arrays = zip(
        *(jax.tree.leaves(tree) for tree in (_leaf_names(arguments, "argument "), arguments)), strict=True
    )
    inputs = [trace_value(array, functools.partial(str, name)) for name, array in named_arrays]
    results = [value.origin for value in run_jaxpr(jaxpr.jaxpr, jaxpr.consts, inputs)]
    names = jax.tree.leaves(_leaf_names(result_shapes, "result "))
    nonfinite_results = [(origin, name) for origin, name in zip(results, names, strict=True) if origin.kind]
    if not nonfinite_results:
        return ""
    origin, name = max(nonfinite_results, key=lambda result: result[0].kind)
    return f"{name} is {KIND_NAMES[origin.kind]}: {', with input '.join(describe_origins(origin))}"


def _leaf_names(tree: PyTree, prefix: str) -> PyTree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (prefix + jax.tree_util.keystr(path)).strip(), tree
    )


def describe_origins(origin: Origin) -> Iterator[str]:
    """Yields a text for the operation that first produced the NaN or the infinite value.

    It is such as `NaN from log(float32[]) at file.py:3`. If an input of this operation was not finite in the
    other way (infinite for a NaN, NaN for an infinite value), the text for that input follows, and so on.
    Yields nothing if the origin is that of a finite value.
    """
    while origin.kind:
        same_kind = [parent for parent in origin.inputs if parent.kind == origin.kind]
        if same_kind:
            origin = same_kind[0]
            continue
        yield f"{KIND_NAMES[origin.kind]} from {origin.description}"
        origin = next(iter(origin.inputs), NO_ORIGIN)


def run_jaxpr(
    jaxpr: core.Jaxpr, constants: Sequence[ArrayLike], arguments: list[TracedValue]
) -> list[TracedValue]:
    """Executes a jaxpr (a program of JAX) operation by operation; frees each value after its last use.

    Errors of its operations pass through.

    Args:
      jaxpr: the program.
      constants: values of `jaxpr.constvars`, in this order.
      arguments: values of `jaxpr.invars`, in this order, with their origins.

    Returns:
      One TracedValue (array and origin) per result of the jaxpr, in the order of `jaxpr.outvars`.

    Raises:
      ValueError: if the number of constants or arguments is wrong.
    """
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

    def read(variable: core.Var | core.Literal) -> TracedValue:
        if isinstance(variable, core.Literal):
            dtype = variable.aval.dtype  # type: ignore[attr-defined]  # the value of a literal is an array
            return trace_value(jnp.asarray(variable.val, dtype), lambda: "a constant")
        return values[variable]

    for i, equation in enumerate(jaxpr.eqns):
        results = run_equation(equation, [read(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
        for variable in (*equation.invars, *equation.outvars):
            if not isinstance(variable, core.Literal) and last_use.get(variable, 0) <= i:
                values.pop(variable, None)
    return [read(variable) for variable in jaxpr.outvars]


def run_equation(equation: core.JaxprEqn, inputs: list[TracedValue]) -> list[TracedValue]:
    """Executes one operation, and returns one TracedValue (array and origin) per result.

    `inputs` are the values of `equation.invars`, the results those of `equation.outvars`, in this order. If
    the operation is a call, such as jit, the operations in it are executed one by one. Loops and conditions
    (OPAQUE_PRIMITIVES) are executed as one operation. Errors of operations pass through; raises ValueError if
    the number of inputs is wrong.
    """
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
