"""Converts a bundle's computation to ONNX with jax2onnx and runs it with onnxruntime.

onnxruntime is the faster engine on a CPU. jax2onnx (https://github.com/enpasos/jax2onnx) requires an old
version of orbax, so it cannot be part of an extra: `make onnx` installs it without its dependencies.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import numpy as np
from jax import export as jax_export

from emofuse_jax.serving.bundle.format import ONNX_FILE
from emofuse_jax.serving.interfaces import InputShapes
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.optional import is_installed

ONNX_TOLERANCE = 1e-4
"""Largest accepted difference of the ONNX model's outputs from the checkpoint's."""
ENGINES = ("auto", "jax", "onnx")
"""Values of the argument `engine`."""
INSTALL_COMMAND = "make onnx"
"""Command that installs jax2onnx."""


def check_converter() -> None:
    """Raises ValueError with the install command if jax2onnx is not installed; otherwise does nothing."""
    if not is_installed("jax2onnx"):
        raise ValueError(f"--onnx needs jax2onnx; install it: {INSTALL_COMMAND}")


def write_onnx(
    path: str,
    compute: Callable[[dict[str, jax.Array]], dict[str, jax.Array]],
    inputs: InputShapes,
    outputs: list[str],
) -> None:
    """Writes `compute` as an ONNX model with a dynamic batch size; its weights become constants.

    Args:
      path: file to write; an existing one is replaced.
      compute: function from inputs by name to outputs by name. Errors of JAX pass through if it cannot be
        traced for a batch of unknown size.
      inputs: shape without the batch axis, and dtype, of each input, by name.
      outputs: names of the outputs to write, in order.

    Raises:
      ValueError: jax2onnx is not installed or does not support an operation (the message names it). Its other
        errors pass through.
      KeyError: `compute` has no output of a name in `outputs`.
      ModuleNotFoundError: onnx_ir, which jax2onnx needs, is not installed.
      OSError: the file cannot be written.
    """
    check_converter()
    for logger_name in ("jax2onnx", "onnx_ir"):  # they warn about missing libraries of their examples
        logging.getLogger(logger_name).setLevel(logging.ERROR)
    import jax2onnx

    (b,) = jax_export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((b, *shape), dtype) for shape, dtype in inputs.values()]

    def compute_positional(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        named_outputs = compute(dict(zip(inputs, arrays, strict=True)))
        return tuple(named_outputs[name] for name in outputs)

    names = {"input_names": list(inputs), "output_names": outputs}
    try:
        # traced before jax2onnx replaces functions of JAX and Flax
        traced = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(compute_positional)(*shapes))
        with _name_symbolic_dimensions():
            model = jax2onnx.to_onnx(traced, shapes, model_name="emofuse", opset=21, **names)
    except NotImplementedError as error:
        raise ValueError(
            f"--onnx: the model cannot be converted: {to_one_line(error)}; export it without --onnx"
        ) from error
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


@contextlib.contextmanager
def _name_symbolic_dimensions() -> Iterator[None]:
    """Makes onnx_ir name JAX's symbolic sizes, such as `4*b`, in the `with` block; yields None.

    jax2onnx 0.17 passes them as numbers. When the block ends, onnx_ir works as before. Raises
    ModuleNotFoundError if onnx_ir is not installed.
    """
    import onnx_ir._core as core

    original_convert = core._maybe_convert_to_symbolic_dim

    def convert_dimension(dimension: Any) -> object:  # noqa: ANN401
        is_symbolic = jax_export.is_symbolic_dim(dimension)
        return core.SymbolicDim(str(dimension)) if is_symbolic else original_convert(dimension)

    core._maybe_convert_to_symbolic_dim = convert_dimension
    try:
        yield
    finally:
        core._maybe_convert_to_symbolic_dim = original_convert


def choose_engine(requested: str, bundle_path: str, has_onnx: bool) -> str:
    """Returns the name of the engine to use, "jax" or "onnx".

    "auto" selects "onnx" on a CPU if the bundle has the ONNX file and onnxruntime is installed, otherwise
    "jax".

    Args:
      requested: "auto", "jax" or "onnx".
      bundle_path: bundle directory, for messages.
      has_onnx: True if the bundle has the ONNX file.

    Raises:
      ValueError: the engine is unknown, or "onnx" is requested but the file or onnxruntime is missing.
    """
    if requested not in ENGINES:
        raise ValueError(f"engine={requested!r}: expected one of {', '.join(ENGINES)}")
    if requested == "auto":
        can_run_onnx = has_onnx and is_installed("onnxruntime")
        return "onnx" if can_run_onnx and jax.default_backend() == "cpu" else "jax"
    if requested == "onnx" and not has_onnx:
        raise ValueError(
            f"{bundle_path}: engine='onnx' needs {ONNX_FILE}; export the bundle again with --onnx"
        )
    if requested == "onnx" and not is_installed("onnxruntime"):
        raise ValueError("engine='onnx' needs onnxruntime: pip install '.[onnx]' in a clone of emofuse")
    return requested


def open_onnx(
    path: str, data: bytes
) -> Callable[[dict[str, jax.Array], dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Opens an ONNX model with onnxruntime on the CPU, and returns a function that runs it.

    The function takes `(weights, inputs)`, both arrays by name, and returns all outputs of the model, arrays
    by name. It ignores `weights`, because the model contains its weights, and raises ValueError if
    onnxruntime fails, for example because an input has another name, shape or dtype than the model's.

    Args:
      path: bundle directory, for messages.
      data: contents of the ONNX file.

    Raises:
      ValueError: onnxruntime cannot open `data`.
      ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no common class
        raise ValueError(
            f"{path}/{ONNX_FILE}: cannot be opened: {to_one_line(error)}; export the bundle again with --onnx"
        ) from error
    names = [output.name for output in session.get_outputs()]

    def call(weights: dict[str, jax.Array], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # the errors of onnxruntime have no common class
            raise ValueError(
                f"{path}/{ONNX_FILE}: onnxruntime cannot run it; load the bundle with engine='jax':"
                f" {to_one_line(error)}"
            ) from error

    return call
