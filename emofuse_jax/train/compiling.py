"""How steps are compiled."""

import functools

import jax
from jax.sharding import Mesh

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
"""Products and convolutions by YNNPACK: weight gradients of 3x3 convolutions run 1.7 to 3 times as fast."""


def step_options(mesh: Mesh) -> dict[str, str] | None:
    """Compiler options of training and scoring steps for the devices of a mesh; None: the defaults."""
    return cpu_options() if mesh.devices.flat[0].platform == "cpu" else None


@functools.cache
def cpu_options() -> dict[str, str] | None:
    """CPU_OPTIONS where this version of XLA knows them; they are experimental."""
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
