"""Our answer to a stored or fresh case, and how far it may be from the peer's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

MIN_SCALE = 1e-4
"""Arrays smaller than this all over are compared as if their largest entry were this; no stored one is."""


def assert_close(ours, theirs, tolerance, name):
    """The largest difference is at most `tolerance` of the largest entry, or of `MIN_SCALE`."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: shape {ours.shape}, the peer's is {theirs.shape}"
    assert np.isfinite(theirs).all(), f"{name}: the peer's answer is not finite"
    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), MIN_SCALE)
    assert error <= tolerance, f"{name}: {error:.2e} of the largest entry apart, allowed {tolerance:.0e}"


def compare(function, case, tolerance=1e-4):
    """Outputs, and gradients of `sum cotangent * out` by every input that the peer gives one for."""
    constants = {k: jnp.asarray(v) for k, v in case["in"].items() if k not in case["grad"]}
    variables = {k: jnp.asarray(case["in"][k]) for k in case["grad"]}
    cotangents = {k: jnp.asarray(v) for k, v in case["cotangent"].items()}

    @functools.partial(
        jax.jit, compiler_options={"xla_backend_optimization_level": 0}
    )  # compiling is most of it
    def run_ours(variables):
        out, vjp = jax.vjp(lambda variables: function(constants | variables), variables)
        return out, vjp({k: cotangents[k].astype(v.dtype) for k, v in out.items()})[0]

    out, grads = run_ours(variables)
    assert set(out) == set(case["out"])
    for name, value in case["out"].items():
        assert_close(out[name], value, tolerance, f"output {name}")
    for name, value in case["grad"].items():
        assert_close(grads[name], value, tolerance, f"gradient of {name}")
