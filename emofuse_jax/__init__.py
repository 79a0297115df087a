"""Audio-visual emotion recognition in JAX: `import emofuse_jax as ef`.

Each name is imported when it is first used, so that this import is quick. `__init__.pyi` has the same names
with their types.
"""

from importlib import import_module

_EXPORTS = {
    "api.config": ("config", "configs"),
    "api.prepare": ("prepare",),
    "api.records": ("Records", "open_records"),
    "api.write_records": ("write_records",),
    "data.array_clip": ("Clip",),
    "data.records": ("Record",),
    "data.writing.corpus": ("Corpus", "EvaluationProtocol", "MediaClip"),
    "api.model": ("CompiledModel", "build_model"),
    "models.interfaces": (
        "EncodedSequence",
        "EncodedSequences",
        "EncoderOutput",
        "FusionOutput",
        "PooledVectors",
    ),
    "types": ("Batch", "InputSpec", "Outputs", "TrainState"),
    "utils.config_dict": ("ConfigDict",),
    "api.run": ("Evaluation", "Run", "evaluate", "export", "train"),
    "api.cross_validation": ("CrossvalResults", "compare", "crossval"),
    "api.results": ("Comparison", "Scores"),
    "serving": ("load",),
    "serving.bundle.load": ("Bundle",),
    "serving.predictions": ("FailedWindow", "FilePredictions", "Prediction"),
    "api.registration": ("register_corpus", "register_encoder", "register_fusion", "register_objective"),
}
"""The names of the public API by the module that defines them."""
_MODULE_BY_NAME = {name: module for module, names in _EXPORTS.items() for name in names}
_SUBPACKAGES = ("settings",)

__all__ = [*sorted(_MODULE_BY_NAME), *_SUBPACKAGES, "__version__"]


def __getattr__(name: str) -> object:
    """Returns a public name or the subpackage `settings`, or, for `__version__`, the version as text.

    They are imported when they are first used. Raises AttributeError if there is no such public name.
    """
    if name in _MODULE_BY_NAME:
        value = getattr(import_module(f"emofuse_jax.{_MODULE_BY_NAME[name]}"), name)
    elif name in _SUBPACKAGES:
        value = import_module(f"emofuse_jax.{name}")
    elif name == "__version__":
        value = import_module("emofuse_jax.utils.versions").EMOFUSE_VERSION
    else:
        raise AttributeError(
            f"module 'emofuse_jax' has no attribute {name!r}; dir(emofuse_jax) lists the names"
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the sorted list of the public names, with the subpackage `settings` and `__version__`."""
    return sorted(__all__)
