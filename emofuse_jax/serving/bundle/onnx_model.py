"""A bundle's computation as ONNX: written by jax2onnx, run by onnxruntime, the faster engine on a CPU.

jax2onnx (https://github.com/enpasos/jax2onnx) pins an old orbax, so that no extra can name it: `make onnx`
installs it without its dependencies.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator

import jax
import jax.extend
import numpy as np
from jax import export as jax_export

from emofuse_jax.serving.bundle.format import ONNX_FILE
from emofuse_jax.utils.errors import to_one_line

ONNX_TOLERANCE = 1e-4
"""Largest difference of probabilities from the checkpoint's that an export takes."""
ENGINES = ("auto", "jax", "onnx")
INSTALL_COMMAND = "make onnx"


def check_converter() -> None:
    """ValueError that names the command where what converts is not installed."""
    if importlib.util.find_spec("jax2onnx") is None:
        raise ValueError(f"ONNX needs jax2onnx: {INSTALL_COMMAND}")


def write_onnx(
    path: str,
    compute: Callable[[dict], dict],
    inputs: dict[str, tuple[tuple, np.dtype]],
    outputs: list[str],
) -> None:
    """Writes `compute`, whose weights become constants, with a dynamic batch.

    Args:
      path: of the file.
      compute: inputs by name to outputs by name.
      inputs: shape without the batch, and dtype, by name.
      outputs: their names.

    Raises:
      ValueError: what converts is not installed, or it does not know an operation, which is named.
    """
    check_converter()
    for logger_name in ("jax2onnx", "onnx_ir"):  # they warn of examples whose libraries are not there
        logging.getLogger(logger_name).setLevel(logging.ERROR)
    import jax2onnx

    (b,) = jax_export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((b, *shape), dtype) for shape, dtype in inputs.values()]

    def compute_positional(*arrays):
        named_outputs = compute(dict(zip(inputs, arrays, strict=True)))
        return tuple(named_outputs[name] for name in outputs)

    names = {"input_names": list(inputs), "output_names": outputs}
    try:
        # traced before jax2onnx puts its own functions in the place of JAX's and Flax's
        traced = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(compute_positional)(*shapes))
        with _name_symbolic_dimensions():
            model = jax2onnx.to_onnx(traced, shapes, model_name="emofuse", opset=21, **names)
    except NotImplementedError as error:
        raise ValueError(f"ONNX: {to_one_line(error)}") from error
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


@contextlib.contextmanager
def _name_symbolic_dimensions() -> Iterator[None]:
    """Has onnx_ir name JAX's dimensions, such as `4*b`: jax2onnx 0.17 hands it them as numbers."""
    import onnx_ir._core as core

    original_convert = core._maybe_convert_to_symbolic_dim

    def convert_dimension(dimension):
        is_symbolic = jax_export.is_symbolic_dim(dimension)
        return core.SymbolicDim(str(dimension)) if is_symbolic else original_convert(dimension)

    core._maybe_convert_to_symbolic_dim = convert_dimension
    try:
        yield
    finally:
        core._maybe_convert_to_symbolic_dim = original_convert


def choose_engine(requested: str, bundle_path: str, has_onnx: bool) -> str:
    """`jax` or `onnx`: of `auto`, onnxruntime on a CPU where the bundle has the file and it is installed.

    Raises:
      ValueError: `onnx` is asked for, and something is missing.
    """
    if requested not in ENGINES:
        raise ValueError(f"engine {requested!r}, expected one of {', '.join(ENGINES)}")
    is_installed = importlib.util.find_spec("onnxruntime") is not None
    if requested == "auto":
        return "onnx" if has_onnx and is_installed and jax.default_backend() == "cpu" else "jax"
    if requested == "onnx" and not has_onnx:
        raise ValueError(f"{bundle_path}: has no {ONNX_FILE}: export it again with --onnx")
    if requested == "onnx" and not is_installed:
        raise ValueError("engine onnx needs onnxruntime: pip install 'emofuse[onnx]'")
    return requested


def open_onnx(path: str, data: bytes) -> Callable[[dict, dict], dict]:
    """`(weights, inputs) -> outputs` by onnxruntime, on the CPU; its weights are its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common class
        raise ValueError(f"{path}/{ONNX_FILE}: cannot be opened: {to_one_line(error)}") from error
    names = [output.name for output in session.get_outputs()]

    def call(weights: dict, inputs: dict) -> dict:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return call
