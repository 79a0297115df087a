"""How programs are compiled."""

import functools

import jax
from jax.sharding import Mesh

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
"""Products and convolutions by YNNPACK: weight gradients of 3x3 convolutions run 1.7 to 3 times as fast."""

CPU_FAST_COMPILE_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""For what runs a few times on a CPU: compiled five times as fast, and a third as fast to run."""


def step_options(mesh: Mesh) -> dict | None:
    """Compiler options of training and scoring steps for the devices of a mesh; None: the defaults."""
    return supported_options(*CPU_OPTIONS.items()) if is_cpu_mesh(mesh) else None


def single_use_options(mesh: Mesh) -> dict | None:
    """Compiler options of what runs once, such as drawing the first parameters."""
    return supported_options(*CPU_FAST_COMPILE_OPTIONS.items()) if is_cpu_mesh(mesh) else None


def is_cpu_mesh(mesh: Mesh) -> bool:
    """Whether the devices of a mesh are a CPU's."""
    return mesh.devices.flat[0].platform == "cpu"


def supported_options(*options: tuple[str, str | int | bool]) -> dict | None:
    """Those of the options, all experimental, that this version of XLA knows; None where it knows none."""
    return dict(option for option in options if is_supported_option(*option)) or None


@functools.cache
def is_supported_option(name: str, value: str | int | bool) -> bool:
    """Whether XLA takes it."""
    try:
        jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
