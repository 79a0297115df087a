"""Audio-visual emotion recognition in JAX: `import emofuse_jax as ef`."""

import importlib
import types

_SUBPACKAGES = ("settings",)


def __getattr__(name: str) -> types.ModuleType:
    """Imports a subpackage when it is first used: configs call `ef.settings.base(...)`."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"emofuse_jax.{name}")
    raise AttributeError(f"module 'emofuse_jax' has no attribute {name!r}")
